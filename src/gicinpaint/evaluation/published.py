"""The numbers that the paper prints, to stand beside one's own; never measured here."""

NOTE = (
    "Published numbers: Yu et al. 2018, table 1, Places2 validation images; protocol not published. Mean errors inside "
    "the hole with values in [0, 1] fit them; what their TV measures is not known."
)
ROWS = {
    "PatchMatch (published)": {"hole/l1": 16.1, "hole/l2": 3.9, "hole/psnr": 16.62, "hole/tv": 25.0},
    "without attention (published)": {"hole/l1": 9.4, "hole/l2": 2.4, "hole/psnr": 18.15, "hole/tv": 25.7},
    "full model (published)": {"hole/l1": 8.6, "hole/l2": 2.1, "hole/psnr": 18.91, "hole/tv": 25.3},
}
