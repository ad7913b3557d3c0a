"""Triton bodies of the ops in `core`, under the same file names.

They are imported only when a CUDA tensor arrives. Each module names its kernels at their default
tiles in `VARIANTS`, which `ahead` compiles without a GPU.
"""
