"""Where the images come from: lists of cases, patient-level splits, slices."""
