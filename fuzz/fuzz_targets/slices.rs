#![no_main]
corten_fuzz::target!(corten::fuzz::slices);
