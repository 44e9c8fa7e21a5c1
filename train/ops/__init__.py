"""StyleGAN2's custom operations, as CUDA kernels with references in plain torch: see docs/kernels.md."""
