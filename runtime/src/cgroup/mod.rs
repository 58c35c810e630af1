//! placeholder
use serde::{Deserialize, Serialize};
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {}
impl Record {
    pub fn is_frozen(&self) -> crate::Result<bool> {
        Ok(false)
    }
}
