"""Samplers: pure functions of (model, x, schedule).

Those of continuous time, which are in `SAMPLERS`, all take the same arguments; `ancestral` and `implicit` are for the
discrete chain of :mod:`..gaussian`.
"""

from . import ddim, dpm_solver, dpm_solver_pp, euler
from .noise import draw_noise

SAMPLERS = {
    "ddim": ddim.ddim,
    "euler": euler.euler,
    "euler_maruyama": euler.euler_maruyama,
    "dpm_solver_2": dpm_solver.dpm_solver_2,
    "dpm_solver_3": dpm_solver.dpm_solver_3,
    "dpm_solver_fast": dpm_solver.dpm_solver_fast,
    "dpm_solver_pp_2m": dpm_solver_pp.dpm_solver_pp_2m,
    "sde_dpm_solver_pp_2m": dpm_solver_pp.sde_dpm_solver_pp_2m,
}

__all__ = ["SAMPLERS", "draw_noise"]
