# Grobs are measured on a device: one without a file, so that no Rplots.pdf is left behind.
options(device = function(...) grDevices::pdf(NULL))
