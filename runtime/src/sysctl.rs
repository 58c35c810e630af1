#[derive(Debug)] pub struct Plan;
impl Plan { pub fn new(_: &oci_spec::runtime::Spec) -> crate::Result<Self> { Ok(Self) } }
pub fn apply(_: &Plan, _: std::os::fd::BorrowedFd<'_>) -> crate::Result<()> { Ok(()) }
