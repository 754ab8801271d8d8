//! Registered buffers, and errors of `verbs` as errors of the transport.

use std::sync::Arc;

use verbs::{Access, Buffer, ProtectionDomain, Provider};

use crate::error::{Error, Transport};

/// One registration, cut into `count` buffers of `size` bytes.
pub(crate) fn buffers<P: Provider>(
    domain: &ProtectionDomain<P>,
    count: usize,
    size: usize,
    access: Access,
) -> Result<Vec<Buffer>, Error> {
    let mut rest = domain.allocate(count * size, access).map_err(verbs_error)?;
    let mut cut = Vec::with_capacity(count);
    while rest.len() > size {
        let tail = rest.split_off(size);
        cut.push(std::mem::replace(&mut rest, tail));
    }
    cut.push(rest);
    Ok(cut)
}

pub(crate) fn verbs_error(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Transport::Verbs(Arc::new(error)).into()
}
