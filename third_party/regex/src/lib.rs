//! oci-spec 0.10 needs `regex` for one expression, the syntax of `execCPUAffinity`. The full engine
//! with its Unicode tables was 1.2 MB of corten's 4.7, and two thirds of the relocations that each
//! start of the program has to apply; its pages were most of what `exec` had more than crun in peak
//! memory. Same types, same answers for such an expression, a twentieth of the size.
//!
//! To be dropped when oci-spec does without.

pub use regex_lite::*;
