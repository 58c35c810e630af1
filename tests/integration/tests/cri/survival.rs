pub(crate) const TESTS: &[(&str, crate::Alone)] = &[];
