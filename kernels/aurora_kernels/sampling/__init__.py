"""How tokens are drawn: temperature, top-k, top-p, and the noise of a seed."""

from aurora_kernels.sampling.rows import Columns, Sampling, SamplingRows

__all__ = ["Columns", "Sampling", "SamplingRows"]
