"""Linear layers in the form that is fastest on this machine, by measurement."""

from aurora_kernels.linear.calibration import Calibration, decode_threads, pack_linears
from aurora_kernels.linear.form import FORMS, Form

__all__ = ["FORMS", "Calibration", "Form", "decode_threads", "pack_linears"]
