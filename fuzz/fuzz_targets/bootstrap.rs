#![no_main]
corten_fuzz::target!(containerd_shim_corten::fuzz::bootstrap);
