"""How good a translation is, still and moving. `evaluate` runs everything; each metric is a file of its own.

`distances`: FID, KID; `swd`: sliced Wasserstein distance; `palette`: colours; `diversity`: LPIPS, MS-SSIM, DFID over
styles; `motion`: warp error, style drift, equivariance; `style_space`: perceptual path length, linear separability;
`style_tools`: styles fitted to a picture, attribute directions. `docs/metrics.md` says what each is good for.
"""
