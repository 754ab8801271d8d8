//! Options of a connection: all that a configuration asks for is done, or refused by its name.

use std::{net::IpAddr, sync::Arc, time::Duration};

use rdma_host::{
    ConnectOptions,
    config::{AuthenticationOptions, QUEUE_ENTRIES},
};
use uuid::Uuid;

use super::{
    Connection, EndpointKind,
    key::{boolean, integer},
};
use crate::{failure::Failure, host, program, secrets, target_address};

/// Options of the command line, which take precedence over a configuration.
#[derive(Clone, Debug, Default)]
pub struct GivenOptions {
    /// Host NQN.
    pub hostnqn: Option<String>,
    /// Host identifier.
    pub hostid: Option<Uuid>,
    /// Address of this host to use.
    pub source: Option<IpAddr>,
    /// Keep-alive timeout.
    pub keep_alive: Option<Duration>,
    /// Type of service of the connections.
    pub type_of_service: Option<u8>,
    /// Policy, and the credentials if any are given.
    pub authentication: AuthenticationOptions,
}

/// Parameters that RDMA does not have; Linux refuses them for it, too.
const TLS_PARAMETERS: [&str; 5] = ["tls", "concat", "tls-key", "tls-key-identity", "keyring"];
const DIGEST_PARAMETERS: [&str; 2] = ["hdr-digest", "data-digest"];
/// Names of the host secret, in the INI format and in JSON.
const HOST_SECRET: &str = "kxchap-secret (dhchap_key)";

impl Connection {
    /// Options for the library.
    ///
    /// # Errors
    ///
    /// A usage error if the configuration asks for what RDMA or this program does not have.
    pub fn options(&self, given: &GivenOptions) -> Result<ConnectOptions, Failure> {
        self.options_or_reason(given).map_err(|failure| failure.context(self.place()))
    }

    /// File and line, for messages.
    pub fn place(&self) -> String {
        format!("{}:{}", self.path.display(), self.line)
    }

    fn options_or_reason(&self, given: &GivenOptions) -> Result<ConnectOptions, Failure> {
        self.check_transport()?;
        let nqn = given.hostnqn.as_deref().or(self.hostnqn.as_deref());
        // The identifier of the file belongs to the name in the file, and was checked there.
        let own_id = self.hostid.as_deref().filter(|_| given.hostnqn.is_none());
        // With the system's own identifier, targets would take both for one host.
        let id = own_id.and_then(|id| id.parse().ok()).or_else(|| nqn.map(host::id_for));
        let host = host::identity(nqn, given.hostid.or(id))?;
        let subsystem = self.subsystem.parse().map_err(Failure::usage)?;
        let address = &self.address;
        let address = target_address::address(&address.traddr, address.trsvcid.as_deref())?;
        let mut options = ConnectOptions::new(address, subsystem, host);
        let source = self.address.host_traddr.as_deref().map(str::parse).transpose();
        let source = source.map_err(|_| Failure::usage("host-traddr is no IP address"))?;
        options.source = given.source.or(source);
        if self.kind == EndpointKind::Discovery {
            options.keep_alive = Duration::ZERO;
        }
        let keep_alive = given.keep_alive.or(self.seconds("keep-alive-tmo"));
        options.keep_alive = keep_alive.unwrap_or(options.keep_alive);
        options.type_of_service =
            given.type_of_service.or(self.number("tos").and_then(|tos| u8::try_from(tos).ok()));
        options.disable_flow_control = self.is_true("disable-sqflow");
        self.set_queues(&mut options)?;
        self.set_reconnect(&mut options);
        options.authentication = self.authentication(given)?;
        Ok(options)
    }

    /// Refuses what is not for RDMA.
    fn check_transport(&self) -> Result<(), Failure> {
        let transport = &self.address.transport;
        if !transport.eq_ignore_ascii_case("rdma") {
            return Err(Failure::usage(format!("transport {transport} is not supported; RDMA is")));
        }
        self.check_encryption()?;
        self.refuse(&DIGEST_PARAMETERS, "digests are for TCP")?;
        if self.address.host_iface.is_some() {
            let reason = "host-iface is set, which is for TCP; give host-traddr instead";
            return Err(Failure::usage(reason));
        }
        Ok(())
    }

    /// Refuses encryption, which RDMA does not have.
    pub(super) fn check_encryption(&self) -> Result<(), Failure> {
        self.refuse(&TLS_PARAMETERS, "RDMA has no TLS, and the data would not be encrypted")
    }

    fn refuse(&self, parameters: &[&str], reason: &str) -> Result<(), Failure> {
        let is_set = |name: &&&str| {
            self.parameters.get(name).is_some_and(|value| boolean(value) != Some(false))
        };
        match parameters.iter().find(is_set) {
            Some(name) => Err(Failure::usage(format!("{name} is set; {reason}; remove it"))),
            None => Ok(()),
        }
    }

    /// Sets number and size of the I/O queues.
    fn set_queues(&self, options: &mut ConnectOptions) -> Result<(), Failure> {
        let given = |name| self.number(name).filter(|&number| number > 0);
        if let Some(queues) = given("nr-io-queues") {
            // The range was checked when the file was read.
            options.io_queues = u16::try_from(queues).unwrap_or(u16::MAX);
        }
        if let Some(entries) = given("queue-size") {
            let entries = u16::try_from(entries).ok().filter(|it| QUEUE_ENTRIES.contains(it));
            let (min, max) = (QUEUE_ENTRIES.start(), QUEUE_ENTRIES.end());
            let wrong = || Failure::usage(format!("queue-size takes a number from {min} to {max}"));
            options.queue_entries = entries.ok_or_else(wrong)?;
        }
        let io = self.kind == EndpointKind::Subsystem;
        for name in ["nr-write-queues", "nr-poll-queues"] {
            if io && given(name).is_some() {
                program::warn(format_args!(
                    "{}: {name} is not used: each queue reads, writes and polls",
                    self.place()
                ));
            }
        }
        Ok(())
    }

    fn set_reconnect(&self, options: &mut ConnectOptions) {
        let reconnect = &mut options.reconnect;
        if let Some(delay) = self.seconds("reconnect-delay").filter(|delay| !delay.is_zero()) {
            reconnect.delay = delay;
        }
        for (name, field) in [
            ("ctrl-loss-tmo", &mut reconnect.loss_timeout),
            ("fast-io-fail-tmo", &mut reconnect.fast_io_fail),
        ] {
            if self.number(name).is_some() {
                *field = self.seconds(name);
            }
        }
    }

    /// Credentials of the command line, else those of the file.
    pub(super) fn authentication(
        &self,
        given: &GivenOptions,
    ) -> Result<AuthenticationOptions, Failure> {
        let authentication = given.authentication.clone();
        if authentication.credentials.is_some() {
            return Ok(authentication);
        }
        let secret = |name, label| {
            let parsed = self.parameters.get(name).map(secrets::parse).transpose();
            parsed.map_err(|error| Failure::usage(format!("{label}: {error}")))
        };
        let host = secret("kxchap-secret", HOST_SECRET)?;
        let controller = secret("kxchap-ctrl-secret", "kxchap-ctrl-secret (dhchap_ctrl_key)")?;
        let credentials = secrets::credentials(host, controller, HOST_SECRET)?;
        Ok(authentication.credentials(credentials.map(Arc::new)))
    }

    fn number(&self, name: &str) -> Option<i32> {
        self.parameters.get(name).and_then(integer)
    }

    /// Time in seconds; none for -1, which is for ever.
    fn seconds(&self, name: &str) -> Option<Duration> {
        let seconds = u64::try_from(self.number(name)?).ok()?;
        Some(Duration::from_secs(seconds))
    }

    fn is_true(&self, name: &str) -> bool {
        self.parameters.get(name).and_then(boolean) == Some(true)
    }
}
