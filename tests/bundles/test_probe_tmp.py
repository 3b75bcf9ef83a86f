import sys, shutil
from pathlib import Path
import pytest
sys.path.insert(0, str(Path(__file__).parent))
from test_bad_pairs import change, cine, shifted, blank, trained, data
from bundles import *
from monai.bundle import run
from common.engines.failure import is_deliberate, root_cause
@pytest.mark.parametrize("o",[{"target":"seg"},{"dataset":"image_folder"},{"text_source":"tabel"},{"source":"t1c","target":"t2f","text_source":"table"},{"image_size":48},{"slices_per_case":0},{"loss_weight":"x"},{"text_source":"learned","guidance":"none"},{"pixel_mm":-1},{"num_val_slices":1},{"phantom_cases":2,"dataset":"brain_phantom","dataset_dir":"/tmp/phx"},{"guidance":"none","text_source":"biomedclip"},{"flip_axes":[2]}],ids=str)
def test_o(trained,o):
    try: run(config_file=str(configs("dfbk")/"train.json"),**tiny(*trained)|o)
    except Exception as e:
        c=root_cause(e); print("RESULT",o,is_deliberate(c),type(c).__name__,str(c)[:400].replace("\n"," | "))
    else: print("RESULT",o,"fine")
@pytest.mark.parametrize("m",["t2f","seg"])
def test_c(trained,data,m):
    path=FACTS["dfbk"].volume_of(data,"training"); path=path.with_name(path.name.replace("t2f",m)); change(path,cine)
    try: run(config_file=str(configs("dfbk")/"train.json"),**tiny("dfbk",data,trained.folder))
    except Exception as e:
        c=root_cause(e); print("RESULT cine",m,is_deliberate(c),type(c).__name__,str(c)[:400])
    else: print("RESULT cine fine")
