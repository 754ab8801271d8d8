//! Client: a subsystem that is opened by the name of its target.

use nvmf_options::pairs::OptionPairs;
use rdma_host::{Error, Subsystem, SubsystemOptions, wire::NamespaceId};
use verbs::{Provider, RdmaCore};

use crate::{
    byte_namespace::{ByteNamespace, ByteOptions},
    error::OpenError,
};

/// Connected subsystem. Dropping it shuts it down in the background; reads and writes of its
/// namespaces then fail with [`NotConnected`](std::io::ErrorKind::NotConnected).
pub struct Client<P: Provider = RdmaCore> {
    subsystem: Subsystem<P>,
}

impl Client {
    /// Connects the target `nvmf-rdma://ADDRESS[:PORT][,ADDRESS[:PORT]…]/NQN` with the defaults of
    /// all options; several addresses are paths to one subsystem.
    ///
    /// # Errors
    ///
    /// When the target is wrong, or no address of it can be connected.
    pub async fn open(target: &str) -> Result<Self, OpenError> {
        Self::open_with(target, &[]).await
    }

    /// Connects a target with options: pairs of a name of nvme-cli (`hostnqn`, `dhchap-secret`,
    /// `nr-io-queues`, …) and a value, as on the command line of `nvmf`. `path` is a further
    /// address, and may be given several times; `iopolicy` chooses among the paths.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and when an option is wrong.
    pub async fn open_with(target: &str, options: &[(&str, &str)]) -> Result<Self, OpenError> {
        let options = parse(target, options)?;
        Ok(Self::of(Subsystem::connect(&options).await?))
    }
}

impl<P: Provider> Client<P> {
    /// Takes a subsystem that is connected.
    #[must_use]
    pub fn of(subsystem: Subsystem<P>) -> Self {
        Self { subsystem }
    }

    /// Opens a namespace, with the default buffers.
    ///
    /// # Errors
    ///
    /// As [`Subsystem::namespace`], and if it has metadata other than protection information, which
    /// has no place among bytes.
    pub async fn namespace(&self, id: u32) -> Result<ByteNamespace, Error> {
        self.namespace_with(id, ByteOptions::default()).await
    }

    /// Opens a namespace with buffers of its own.
    ///
    /// # Errors
    ///
    /// As [`namespace`](Self::namespace), and when memory for the buffers can't be registered.
    pub async fn namespace_with(
        &self,
        id: u32,
        options: ByteOptions,
    ) -> Result<ByteNamespace, Error> {
        let namespace = self.subsystem.namespace(NamespaceId(id)).await?;
        ByteNamespace::new(&self.subsystem, namespace, options)
    }

    /// The subsystem, for registered memory and the state of its paths.
    #[must_use]
    pub fn subsystem(&self) -> &Subsystem<P> {
        &self.subsystem
    }

    /// Shuts all controllers down. Reads and writes in flight fail.
    pub async fn shutdown(self) {
        self.subsystem.shutdown().await;
    }
}

fn parse(target: &str, options: &[(&str, &str)]) -> Result<SubsystemOptions, OpenError> {
    let mut pairs = OptionPairs::new(Some(target));
    let set = options.iter().try_for_each(|(name, value)| pairs.set(name, value));
    set.and_then(|()| pairs.arguments()?.subsystem_options()).map_err(OpenError::Options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_between_commas_are_paths() {
        let target = "nvmf-rdma://192.0.2.7,[2001:db8::1]:4421,192.0.2.9:4422/nqn.2014-08.org:a";
        let options = parse(target, &[("nr-io-queues", "3")]).expect("it is well formed");
        let addresses: Vec<_> = options.addresses().map(|address| address.to_string()).collect();
        assert_eq!(addresses, ["192.0.2.7:4420", "[2001:db8::1]:4421", "192.0.2.9:4422"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let of = |target, options: &[(&str, &str)]| match parse(target, options) {
            Ok(_) => panic!("{target} {options:?}"),
            Err(error) => error.to_string(),
        };
        let target = "nvmf-rdma://192.0.2.7/nqn.2014-08.org:a";
        assert!(of("192.0.2.7", &[]).contains("192.0.2.7"));
        assert!(of("nvmf-rdma://192.0.2.7,,192.0.2.8/nqn.a", &[]).contains("lacks an address"));
        assert!(of(target, &[("nr-io-ques", "3")]).contains("nr-io-ques"));
        assert!(of(target, &[("nr-io-queues", "many")]).contains("many"));
        assert!(!of(target, &[("dhchap-secret", "DHHC-1:00:hush")]).contains("hush"));
    }
}
