#![no_main]
corten_fuzz::target!(corten::fuzz::mount_options);
