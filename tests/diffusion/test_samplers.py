"""What all samplers promise: evaluations, grid, noise, clipping, precision."""

import inspect
from collections import Counter
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from common.diffusion.continuous import VPSchedule, gaussian_noise_prediction
from common.diffusion.samplers import SAMPLERS, draw_noise
from common.diffusion.samplers.dpm_solver import fast_orders
from common.diffusion.samplers.grid import make_grid
from common.diffusion.samplers.prediction import Predictor
from common.diffusion.samplers.steps import ode_step

SCHEDULE = VPSchedule(snr_scale=4.0)
STOCHASTIC = ["euler_maruyama", "sde_dpm_solver_pp_2m"]


class RecordingModel:
    """The exact answer for data N(0.1, 0.3^2); remembers what it was asked."""

    def __init__(self) -> None:
        self.xs: list[Tensor] = []
        self.ts: list[Tensor] = []

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.xs.append(x)
        self.ts.append(t)
        return gaussian_noise_prediction(SCHEDULE, x, t, x.new_tensor(0.1), x.new_tensor(0.3))


def start(batch: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    return draw_noise((batch, 3, 4), torch.Generator().manual_seed(0), dtype=dtype)


def test_all_samplers_take_the_same_arguments() -> None:
    assert len({str(inspect.signature(sampler)) for sampler in SAMPLERS.values()}) == 1


@pytest.mark.parametrize("denoise", [False, True])
@pytest.mark.parametrize("evaluations", [2, 3, 6, 7, 8, 26])
@pytest.mark.parametrize("name", SAMPLERS)
def test_network_is_evaluated_as_often_as_asked(name: str, evaluations: int, denoise: bool) -> None:
    model = RecordingModel()
    SAMPLERS[name](model, start(), SCHEDULE, num_evaluations=evaluations, denoise=denoise)
    assert len(model.ts) == evaluations


@pytest.mark.parametrize(
    ("evaluations", "orders"),
    [
        (1, [1]),
        (2, [2]),
        (3, [2, 1]),
        (9, [3, 3, 2, 1]),
        (50, [3] * 16 + [2]),
        (99, [3] * 32 + [2, 1]),
        (100, [3] * 33 + [1]),
    ],
)
def test_orders_of_fast(evaluations: int, orders: list[int]) -> None:
    assert fast_orders(evaluations) == orders
    assert sum(orders) == evaluations
    assert len(orders) == evaluations // 3 + 1


def test_fast_evaluates_thirds_and_halves_of_its_intervals() -> None:
    """8 evaluations: two steps of order 3, one of order 2, equally long in lambda."""
    model = RecordingModel()
    SAMPLERS["dpm_solver_fast"](model, start(), SCHEDULE, num_evaluations=8, denoise=False)
    lam = SCHEDULE.log_snr(torch.stack(model.ts)[:, 0])
    first, last = make_grid(SCHEDULE, 1)
    where = (lam - first.lam) / (last.lam - first.lam) * 3  # in intervals
    expected = torch.tensor([0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2, 2.5], dtype=torch.float64)
    torch.testing.assert_close(where, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["dpm_solver_2", "dpm_solver_3", "dpm_solver_fast", "dpm_solver_pp_2m"])
def test_one_evaluation_is_a_ddim_step(name: str) -> None:
    """Also says that the step in terms of noise and the step in terms of data are the same map."""
    results = [
        SAMPLERS[sampler](RecordingModel(), start(), SCHEDULE, num_evaluations=1, denoise=False)
        for sampler in ("ddim", name)
    ]
    torch.testing.assert_close(results[1], results[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("evaluations", "t_end"), [(15, 1e-3), (16, 1e-4)])
@pytest.mark.parametrize("name", SAMPLERS)
def test_default_end_time(name: str, evaluations: int, t_end: float) -> None:
    model = RecordingModel()
    SAMPLERS[name](model, start(), SCHEDULE, num_evaluations=evaluations)
    assert model.ts[0].tolist() == [1.0, 1.0]
    assert model.ts[-1].tolist() == [t_end, t_end]


@pytest.mark.parametrize("name", SAMPLERS)
def test_denoising_returns_the_data_predicted_at_the_end(name: str) -> None:
    model = RecordingModel()
    result = SAMPLERS[name](model, start(), SCHEDULE, num_evaluations=9, t_start=0.8, t_end=0.01)
    x, t = model.xs[-1], model.ts[-1]
    assert t[0].item() == 0.01
    noise = model(x, t)
    torch.testing.assert_close(result, (x - SCHEDULE.sigma(t[:1]) * noise) / SCHEDULE.alpha(t[:1]))


@pytest.mark.parametrize(("steps", "first_order"), [(14, True), (15, False)])
def test_last_step_of_2m_is_of_first_order_below_15_steps(steps: int, first_order: bool) -> None:
    model = RecordingModel()
    SAMPLERS["dpm_solver_pp_2m"](model, start(), SCHEDULE, num_evaluations=steps + 1, t_end=1e-3)
    *_, before, after = model.xs
    *_, a, b = make_grid(SCHEDULE, steps, t_end=1e-3)
    plain = ode_step(before, Predictor(model, before).x0(before, a), a, b)
    assert torch.allclose(after, plain, rtol=1e-9, atol=1e-9) == first_order


def test_grid_is_equidistant_in_lambda_or_in_time() -> None:
    for spacing, name in (("lambda", "lam"), ("time", "t")):
        grid = make_grid(SCHEDULE, 10, spacing=spacing, t_start=0.9, t_end=0.002)
        assert (len(grid), grid[0].t, grid[-1].t) == (11, 0.9, 0.002)
        lengths = [getattr(b, name) - getattr(a, name) for a, b in pairwise(grid)]
        assert lengths == pytest.approx([lengths[0]] * 10, rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_evaluations": 0}, "num_evaluations must be at least 1"),
        ({"num_evaluations": 1}, "or 2 with denoise=True"),
        ({"num_evaluations": 5, "t_end": 0.0}, "t = 0 itself is reached by denoise=True"),
        ({"num_evaluations": 5, "t_start": 0.1, "t_end": 0.2}, "t_start=0.1, t_end=0.2"),
        ({"num_evaluations": 5, "spacing": "karras"}, "'karras' is not known; choose 'lambda' or 'time'"),
    ],
)
@pytest.mark.parametrize("name", SAMPLERS)
def test_impossible_requests_are_refused(name: str, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SAMPLERS[name](RecordingModel(), start(), SCHEDULE, **arguments)


def test_integer_start_is_refused() -> None:
    with pytest.raises(TypeError, match=r"must be floating point, got torch\.int64"):
        SAMPLERS["ddim"](RecordingModel(), torch.zeros(2, 3, dtype=torch.int64), SCHEDULE, num_evaluations=5)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sample_does_not_depend_on_the_batch_it_is_drawn_in(name: str) -> None:
    def sample(*seeds: int) -> Tensor:
        sources = generators(*seeds)
        x = draw_noise((len(seeds), 3, 4), sources)
        return SAMPLERS[name](RecordingModel(), x, SCHEDULE, num_evaluations=8, generator=sources)

    together = sample(5, 6, 7, 8)
    apart = torch.cat([sample(5), sample(6, 7, 8)])
    assert torch.equal(together, apart)
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_samplers_use_the_generator_and_nothing_else(name: str) -> None:
    def sample(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return SAMPLERS[name](RecordingModel(), start(), SCHEDULE, num_evaluations=8, generator=generator)

    state = torch.get_rng_state()
    first, again, other = sample(1), sample(1), sample(2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_is_standard_normal_and_global_without_generator() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        noise = draw_noise((20000,), dtype=torch.float64)
        torch.manual_seed(3)
        assert torch.equal(noise, torch.randn(20000, dtype=torch.float64))
    assert abs(noise.mean().item()) < 0.03
    assert abs(noise.std().item() - 1) < 0.03


def test_wrong_number_of_generators_is_refused() -> None:
    with pytest.raises(ValueError, match="2 generators for a batch of 3"):
        draw_noise((3, 4), generators(1, 2))


@pytest.mark.parametrize("name", SAMPLERS)
def test_clipping_keeps_the_data_in_range(name: str) -> None:
    """A model that takes all of x for noise with the wrong sign sees data far outside the range of each coefficient."""
    low, high = torch.tensor([-0.1, -0.2, -0.3, -0.4]), torch.tensor([0.1, 0.2, 0.3, 0.4])

    def sample(clip_x0: tuple[Tensor, Tensor] | None) -> Tensor:
        return SAMPLERS[name](lambda x, t: -x, start(), SCHEDULE, num_evaluations=8, clip_x0=clip_x0)

    assert (sample(None).abs() > high).all()
    clipped = sample((low, high))
    assert clipped.dtype == torch.float64
    assert (clipped <= high).all()
    assert (clipped >= low).all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_clipping_to_a_range_that_is_never_left_changes_nothing(name: str) -> None:
    wide = (torch.tensor(-1e6), torch.tensor(1e6))
    results = [
        SAMPLERS[name](
            RecordingModel(),
            start(),
            SCHEDULE,
            num_evaluations=8,
            clip_x0=clip,
            generator=torch.Generator().manual_seed(0),
        )
        for clip in (None, wide)
    ]
    assert torch.equal(*results)


def test_noise_and_data_predicted_under_clipping_belong_together() -> None:
    predict = Predictor(RecordingModel(), start(), (torch.tensor(-0.05), torch.tensor(0.05)))
    at, x = make_grid(SCHEDULE, 2)[1], start()
    x0, noise = predict.x0(x, at), predict.noise(x, at)
    assert 0 < (x0.abs() < 0.0499).sum() < x0.numel()
    torch.testing.assert_close(at.alpha * x0 + at.sigma * noise, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SAMPLERS)
def test_precision_is_that_of_the_start(name: str, dtype: torch.dtype) -> None:
    model = RecordingModel()
    assert SAMPLERS[name](model, start(dtype=dtype), SCHEDULE, num_evaluations=8).dtype == dtype
    assert {asked.dtype for asked in [*model.xs, *model.ts]} == {dtype}


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in STOCHASTIC])
def test_single_precision_gives_the_double_precision_result(name: str) -> None:
    single, double = (
        SAMPLERS[name](RecordingModel(), start().to(dtype), SCHEDULE, num_evaluations=50)
        for dtype in (torch.float32, torch.float64)
    )
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", SAMPLERS)
def test_only_the_network_rounds_to_half_precision(name: str) -> None:
    """A bf16 answer, as autocast gives, is used as the float32 number that it is."""

    def half(x: Tensor, t: Tensor) -> Tensor:
        return (0.5 * x).bfloat16()

    def rounded(x: Tensor, t: Tensor) -> Tensor:
        return half(x, t).to(x.dtype)

    results = [
        SAMPLERS[name](model, start(dtype=torch.float32), SCHEDULE, num_evaluations=8, generator=generators(0)[0])
        for model in (half, rounded)
    ]
    assert torch.equal(*results)


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_graph_is_kept(name: str) -> None:
    network = nn.Linear(4, 4).double()
    assert not SAMPLERS[name](lambda x, t: network(x), start(), SCHEDULE, num_evaluations=5).requires_grad


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_value_on_the_device_is_ever_read(name: str) -> None:
    """Tensors on the meta device have no values: reading one, which would make the host wait for a GPU, raises."""
    x, clip = torch.zeros(2, 3, 4, device="meta"), (torch.zeros(4, device="meta"), torch.ones(4, device="meta"))
    result = SAMPLERS[name](lambda x, t: x * t[:, None, None], x, SCHEDULE, num_evaluations=9, clip_x0=clip)
    assert result.device.type == "meta"


class OperationCounter(TorchDispatchMode):
    """Counts the tensor operations on more than one sample's worth of elements."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.shape == (2, 3, 4):
            self.calls[str(func)] += 1
        return result


@pytest.mark.parametrize("name", SAMPLERS)
def test_few_tensor_operations_per_evaluation(name: str) -> None:
    """The loop's own work is a dozen passes over x, nothing beside the network."""
    x = start()
    with OperationCounter() as counter:
        SAMPLERS[name](lambda x, t: x, x, SCHEDULE, num_evaluations=100)
    assert sum(counter.calls.values()) <= 12 * 100, counter.calls
