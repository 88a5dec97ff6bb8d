use super::GuideFile;
use crate::{Error, Result};
pub fn read(path: &std::path::Path, _layer: Option<&str>, _batch: Option<&str>) -> Result<GuideFile> { Err(Error::File(format!("{} not yet", path.display()))) }
