//! The target's keys and the host that must know them.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use auth::{Authenticated, Credentials, GroupId, HashId, Secret};
use rdma_host::{ConnectOptions, Controller, Namespace, wire::NamespaceId};
use soft_roce::target::TargetRoot;
use tests::options;

/// The host that the target file names.
pub(crate) const HOST: &str = "nqn.2026-11.org.soft-roce:secret";

/// Another host of it, for which the target never has a controller secret.
pub(crate) const ONE_WAY_HOST: &str = "nqn.2026-11.org.soft-roce:one-way";

pub(crate) const GROUPS: [(&str, GroupId); 6] = [
    ("null", GroupId::NULL),
    ("ffdhe2048", GroupId::FFDHE_2048),
    ("ffdhe3072", GroupId::FFDHE_3072),
    ("ffdhe4096", GroupId::FFDHE_4096),
    ("ffdhe6144", GroupId::FFDHE_6144),
    ("ffdhe8192", GroupId::FFDHE_8192),
];

pub(crate) const HASHES: [(&str, HashId); 3] =
    [("sha256", HashId::SHA_256), ("sha384", HashId::SHA_384), ("sha512", HashId::SHA_512)];

/// Changes the target, in this process: a matrix has no time for a program each.
pub(crate) fn set(words: &[&str]) {
    TargetRoot::guest().set(words).unwrap_or_else(|error| panic!("{error}"));
}

pub(crate) fn set_host(attribute: &str, value: &str) {
    set(&["host", HOST, attribute, value]);
}

/// The hash and the group that the target is to choose.
pub(crate) fn choose(hash: &str, group: &str) {
    set_host("dhchap_hash", hash);
    set_host("dhchap_dhgroup", group);
}

/// A secret in its text form, which differs with `seed`.
pub(crate) fn secret_text(transformation: HashId, length: usize, seed: u64) -> String {
    let secret = Secret::from_bytes(transformation, &tests::noise(length, seed));
    secret.expect("a valid length").encode().as_str().to_owned()
}

/// The shortest of secrets, of no transformation.
pub(crate) fn plain(seed: u64) -> String {
    secret_text(HashId(0), 32, seed)
}

/// A file that only its owner may read; returns its path.
pub(crate) fn secret_file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).expect("the folder is ours");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("the file is ours");
    path.into_os_string().into_string().expect("ASCII")
}

pub(crate) fn credentials(host: &str, controller: Option<&str>) -> Arc<Credentials> {
    let parse = |text| Secret::parse(text).expect("a valid secret");
    Arc::new(match controller {
        None => Credentials::one_way(parse(host)),
        Some(controller) => {
            Credentials::two_way(parse(host), parse(controller)).expect("two secrets")
        }
    })
}

/// Options of the host that must authenticate; two I/O queues.
pub(crate) fn secret_options(credentials: Option<Arc<Credentials>>) -> ConnectOptions {
    let mut options = options();
    options.host.nqn = HOST.parse().expect("an NQN");
    options.io_queues = 2;
    options.authentication.credentials = credentials;
    options.reconnect.delay = Duration::from_millis(500);
    options
}

pub(crate) fn in_runtime<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(test)
}

/// The target's keys.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) host: String,
    pub(crate) controller: Option<String>,
}

impl Keys {
    pub(crate) fn new(host: String, controller: Option<String>) -> Self {
        Self { host, controller }
    }

    /// Gives them to the target.
    pub(crate) fn set(&self) {
        set_host("dhchap_key", &self.host);
        // An empty key is refused by 6.12: what one-way exchanges do not use may stay.
        if let Some(controller) = &self.controller {
            set_host("dhchap_ctrl_key", controller);
        }
    }

    pub(crate) fn credentials(&self) -> Arc<Credentials> {
        credentials(&self.host, self.controller.as_deref())
    }

    pub(crate) fn options(&self) -> ConnectOptions {
        secret_options(Some(self.credentials()))
    }
}

/// Writes and reads blocks; with as many at once as there are queues, each queue has its share.
pub(crate) async fn write_and_read<P: verbs::Provider>(controller: &Controller<P>) {
    let namespace = controller.namespace(NamespaceId(1)).await.expect("it is there");
    let queues = u64::from(controller.negotiated().io_queues);
    let tasks = (0..queues).map(|queue| {
        let buffer = controller.allocate(4096).expect("memory");
        tokio::spawn(blocks(namespace.clone(), queue, buffer))
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("an authenticated queue takes I/O");
    }
}

async fn blocks(namespace: Namespace, queue: u64, mut buffer: rdma_host::Buffer) {
    for turn in 0..2 {
        let pattern = tests::noise(4096, 1 + queue + turn);
        buffer.copy_in(0, &pattern);
        buffer = namespace.write(8 * queue, buffer).await.expect("a write");
        buffer = namespace.read(8 * queue, buffer).await.expect("a read");
        let mut bytes = vec![0; 4096];
        buffer.copy_out(0, &mut bytes);
        assert_eq!(bytes, pattern);
    }
}

/// Connects and does I/O; returns how the queues were authenticated.
pub(crate) async fn connect_and_read(options: &ConnectOptions) -> Vec<Option<Authenticated>> {
    let controller = Controller::connect(options).await.unwrap_or_else(|error| panic!("{error}"));
    write_and_read(&controller).await;
    let authenticated = controller.negotiated().authenticated.clone();
    controller.shutdown().await;
    authenticated
}
