"""WinCLIP and WinCLIP+ (Jeong et al., CVPR 2023)."""
