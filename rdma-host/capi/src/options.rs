//! Options before a connect.

use nvmf_options::pairs::OptionPairs;

use crate::{error::CallError, handle::Table};

/// All options.
pub(crate) static OPTIONS: Table<OptionPairs, 256> = Table::new(1, "nvmf_options");

pub(crate) fn create(target: Option<&str>) -> Result<u64, CallError> {
    OPTIONS.add(OptionPairs::new(target))
}

pub(crate) fn set(handle: u64, name: &str, value: &str) -> Result<(), CallError> {
    OPTIONS.write(handle)?.change(|options| Ok(options.set(name, value)?))
}
