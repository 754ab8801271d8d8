//! Initialization of a controller over fabrics (Base 3.5.1), up to the live state.

use std::time::Duration;

use auth::Authenticated;

use super::{
    actions::{
        BringUpInput, Execute, Negotiated, RdmaConnect, Transfer, connect_command, connect_data,
        needs_authentication,
    },
    io_queue::QueueBringUp,
};
use crate::{
    config::{
        ADMIN_COMMANDS_MIN, ADMIN_QUEUE_ENTRIES, ConnectOptions, READY_TIMEOUT_MAX,
        STATUS_POLL_INTERVAL, TRANSFER_BYTES_DEFAULT,
    },
    error::{Error, Incompatible, Misuse, Rejected, TargetMisbehaved},
    proto::Association,
    wire::{
        CmRequestData, Configuration, ControllerCapabilities, ControllerId, ControllerInfo,
        ControllerStatus, ControllerType, Cqe, Identify, Property, PropertyGet, PropertySet,
        QueueCount, QueueId, SetFeatures, SglDescriptor, Sqe, Version,
    },
};

/// Bring-up of one controller. Call [`action`](Self::action), perform the action, pass the outcome
/// to [`handle`](Self::handle).
///
/// ```text
///  RdmaConnectAdmin → ConnectAdmin → Authenticate → ReadCapabilities → ReadVersion
///     → Enable ⇄ CheckReady → IdentifyController → SetNumberOfQueues
///     → ConnectIoQueues → Live
/// ```
///
/// Each I/O queue has a bring-up of its own, [`QueueBringUp`]; they may run in any order or at the
/// same time. A queue is authenticated when its Connect response requires it; the policy decides
/// whether that is mandatory. Once the admin queue has been authenticated, so are all I/O queues,
/// required or not.
///
/// Any error ends the bring-up; `action` and `handle` return the same error from then on.
#[derive(Debug)]
pub struct BringUp {
    options: ConnectOptions,
    purpose: Purpose,
    step: Step,
    admin_authenticated: Option<Authenticated>,
    queue_id_seed: u32,
}

/// Purpose of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Discovery: admin queue only, and few fields of Identify Controller are set.
    Discovery,
    /// I/O to namespaces.
    Io,
}

/// Next action of the driver.
#[derive(Debug)]
pub enum BringUpAction {
    /// Authenticate this queue and report the outcome.
    Authenticate(QueueId),
    /// Bring up all I/O queues, and report them.
    ConnectIoQueues {
        /// Bring-ups of the queues, in the order of their ids.
        queues: Vec<QueueBringUp>,
        /// Entries of each queue.
        entries: u16,
    },
    /// Send this command and report its response and data.
    Execute(Execute),
    /// All queues are connected.
    Live(Box<Negotiated>),
    /// Establish an RDMA connection for this queue and report the target's private data.
    RdmaConnect(RdmaConnect),
    /// Wait for this time.
    Wait(Duration),
}

#[derive(Debug, Default)]
enum Step {
    #[default]
    RdmaConnectAdmin,
    ConnectAdmin,
    AuthenticateAdmin(ControllerId),
    ReadCapabilities(ControllerId),
    ReadVersion(ControllerId, ControllerCapabilities),
    Enable(Enabling),
    CheckReady(Enabling),
    AwaitReady(Enabling),
    IdentifyController(Enabling),
    SetNumberOfQueues(Box<Negotiated>),
    ConnectIoQueues(Box<Negotiated>),
    Live(Box<Negotiated>),
    Failed(Error),
}

/// Values known while the controller is being enabled.
#[derive(Clone, Copy, Debug)]
struct Enabling {
    controller: ControllerId,
    capabilities: ControllerCapabilities,
    version: Version,
    waited: Duration,
}

impl BringUp {
    /// Creates the bring-up of an I/O controller.
    #[must_use]
    pub fn new(options: ConnectOptions) -> Self {
        Self {
            options,
            purpose: Purpose::Io,
            step: Step::RdmaConnectAdmin,
            admin_authenticated: None,
            queue_id_seed: 0,
        }
    }

    /// Sets the seed of the ids of the I/O queues, which are among those that the target grants.
    /// With a write fence on Linux's target, associations of one host NQN are told apart by these
    /// ids, so each controller needs another number; it stays the same when it reconnects. On other
    /// targets, and by default, the ids begin with 1.
    #[must_use]
    pub fn queue_id_seed(self, seed: u32) -> Self {
        Self { queue_id_seed: seed, ..self }
    }

    /// Creates the bring-up of a discovery controller (Base 3.1.3.3), which is live right after
    /// Identify Controller, without I/O queues.
    #[must_use]
    pub fn discovery(options: ConnectOptions) -> Self {
        Self { purpose: Purpose::Discovery, ..Self::new(options) }
    }

    /// Returns the next action of the driver.
    ///
    /// # Errors
    ///
    /// The error that ended the bring-up, on every call.
    pub fn action(&self) -> Result<BringUpAction, Error> {
        Ok(match &self.step {
            Step::RdmaConnectAdmin => BringUpAction::RdmaConnect(self.rdma_connect_admin()),
            Step::ConnectIoQueues(negotiated) => BringUpAction::ConnectIoQueues {
                queues: self.io_queues(negotiated),
                entries: negotiated.queue_entries,
            },
            Step::AuthenticateAdmin(_) => BringUpAction::Authenticate(QueueId::ADMIN),
            Step::AwaitReady(_) => BringUpAction::Wait(STATUS_POLL_INTERVAL),
            Step::Live(negotiated) => BringUpAction::Live(negotiated.clone()),
            Step::Failed(error) => return Err(error.clone()),
            command => BringUpAction::Execute(self.command(command)),
        })
    }

    /// Passes the outcome of the last action.
    ///
    /// # Errors
    ///
    /// When the outcome ends the bring-up.
    ///
    /// # Panics
    ///
    /// If the input is not an outcome of the last action.
    pub fn handle(&mut self, input: &BringUpInput<'_>) -> Result<(), Error> {
        let step = std::mem::take(&mut self.step);
        match self.advance(step, input) {
            Ok(next) => {
                self.step = next;
                Ok(())
            }
            Err(error) => {
                self.step = Step::Failed(error.clone());
                Err(error)
            }
        }
    }

    /// Returns true if the controller supports traffic-based keep-alive (TBKAS); known once the
    /// number of I/O queues is.
    #[must_use]
    pub fn traffic_keeps_alive(&self) -> bool {
        match &self.step {
            Step::ConnectIoQueues(negotiated) | Step::Live(negotiated) => {
                negotiated.info.traffic_keeps_alive
            }
            _ => false,
        }
    }

    fn io_queues(&self, negotiated: &Negotiated) -> Vec<QueueBringUp> {
        let authenticated = self.admin_authenticated.is_some();
        let queue = |id| QueueBringUp::new(&self.options, negotiated, QueueId(id), authenticated);
        let first = negotiated.first_io_queue.0;
        (first..first + negotiated.io_queues).map(queue).collect()
    }

    fn advance(&mut self, step: Step, input: &BringUpInput<'_>) -> Result<Step, Error> {
        match (step, input) {
            (Step::Failed(error), _) => Err(error),
            (Step::RdmaConnectAdmin, BringUpInput::RdmaConnected(accept)) => {
                match accept.receive_size {
                    size @ 1..ADMIN_COMMANDS_MIN => {
                        let needed = ADMIN_COMMANDS_MIN;
                        Err(TargetMisbehaved::ReceiveQueueSize { size, needed }.into())
                    }
                    _ => Ok(Step::ConnectAdmin),
                }
            }
            (Step::AuthenticateAdmin(controller), BringUpInput::Authenticated(how)) => {
                self.admin_authenticated = Some(*how);
                Ok(Step::ReadCapabilities(controller))
            }
            (Step::AwaitReady(mut enabling), BringUpInput::TimerFired) => {
                enabling.waited += STATUS_POLL_INTERVAL;
                Ok(Step::CheckReady(enabling))
            }
            (Step::ConnectIoQueues(mut negotiated), BringUpInput::IoQueuesReady(queues)) => {
                for queue in *queues {
                    negotiated.queue_entries = negotiated.queue_entries.min(queue.entries);
                    negotiated.unauthenticated_with_secrets |=
                        self.has_secrets() && queue.authenticated.is_none();
                    negotiated.authenticated.push(queue.authenticated);
                }
                Ok(Step::Live(negotiated))
            }
            (step, BringUpInput::Completed(response, data)) => {
                self.completed(step, *response, data)
            }
            (step, input) => panic!("the step is {}, the input {input:?}", step.name()),
        }
    }

    fn completed(&self, step: Step, response: Cqe, data: &[u8]) -> Result<Step, Error> {
        step.check(response)?;
        let result = response.result_dword();
        Ok(match step {
            Step::ConnectAdmin => {
                let controller = ControllerId::of_connect_result(result);
                if controller == ControllerId::DYNAMIC {
                    return Err(TargetMisbehaved::InvalidControllerId.into());
                }
                if needs_authentication(&self.options, QueueId::ADMIN, result, false)? {
                    Step::AuthenticateAdmin(controller)
                } else {
                    Step::ReadCapabilities(controller)
                }
            }
            Step::ReadCapabilities(controller) => {
                let capabilities = ControllerCapabilities(response.result());
                check_capabilities(capabilities, self.purpose)?;
                Step::ReadVersion(controller, capabilities)
            }
            Step::ReadVersion(controller, capabilities) => Step::Enable(Enabling {
                controller,
                capabilities,
                version: Version(result),
                waited: Duration::ZERO,
            }),
            Step::Enable(enabling) => Step::CheckReady(enabling),
            Step::CheckReady(enabling) => enabling.ready(ControllerStatus(result))?,
            Step::IdentifyController(enabling) => {
                let info = ControllerInfo::parse(data)?;
                let negotiated = Box::new(self.negotiate(enabling, info)?);
                match self.purpose {
                    Purpose::Discovery => Step::Live(negotiated),
                    Purpose::Io => Step::SetNumberOfQueues(negotiated),
                }
            }
            Step::SetNumberOfQueues(mut negotiated) => {
                let granted = u16::try_from(QueueCount::parse(result).0).unwrap_or(u16::MAX);
                negotiated.io_queues = self.options.io_queues.min(granted);
                if Association::queues_prove(&self.options.fence, &negotiated) {
                    let count = negotiated.io_queues.max(1);
                    let block = self.queue_id_seed % u32::from(granted / count).max(1);
                    let block = u16::try_from(block).expect("it is less than a u16");
                    negotiated.first_io_queue = QueueId(1 + block * count);
                }
                Step::ConnectIoQueues(negotiated)
            }
            step => panic!("the step is {}, the input a completion", step.name()),
        })
    }

    fn has_secrets(&self) -> bool {
        self.options.authentication.credentials.is_some()
    }

    /// Validates the Identify Controller data (Base 5.1.13.2.1) and derives the negotiated
    /// parameters.
    fn negotiate(&self, enabling: Enabling, info: ControllerInfo) -> Result<Negotiated, Error> {
        if !info.keyed_sgl {
            return Err(Incompatible::NoKeyedSgl.into());
        }
        if info.in_capsule_offset_bytes != 0 {
            return Err(Incompatible::InCapsuleOffset(info.in_capsule_offset_bytes).into());
        }
        let keeps_alive = !self.options.keep_alive.is_zero() && self.purpose == Purpose::Io;
        if keeps_alive && info.keep_alive_granularity == 0 {
            return Err(Incompatible::NoKeepAlive.into());
        }
        match (self.purpose, info.controller_type) {
            (Purpose::Io, _) | (_, ControllerType::NOT_REPORTED | ControllerType::DISCOVERY) => {}
            (Purpose::Discovery, other) => return Err(Misuse::NotDiscovery(other).into()),
        }
        let capsules = [
            ("command capsules (IOCCSZ)", info.command_capsule_bytes, Sqe::SIZE),
            ("response capsules (IORCSZ)", info.response_capsule_bytes, Cqe::SIZE),
        ];
        for (what, bytes, least) in capsules {
            if self.purpose == Purpose::Io && bytes < least as u64 {
                return Err(TargetMisbehaved::CapsuleSize { what, bytes }.into());
            }
        }
        // As in Linux: some discovery controllers report another id in Identify than in Connect.
        if self.purpose == Purpose::Io && info.controller_id != enabling.controller {
            return Err(Error::from(TargetMisbehaved::ControllerId {
                granted: enabling.controller,
                identified: info.controller_id,
            }));
        }
        Ok(Negotiated {
            controller: enabling.controller,
            version: enabling.version,
            capabilities: enabling.capabilities,
            io_queues: 0,
            first_io_queue: QueueId(1),
            queue_entries: self.queue_entries(enabling.capabilities, &info),
            transfer_bytes_max: transfer_bytes_max(enabling.capabilities, &info),
            in_capsule_bytes: in_capsule_bytes(&info),
            authenticated: vec![self.admin_authenticated],
            unauthenticated_with_secrets: self.has_secrets() && self.admin_authenticated.is_none(),
            info,
        })
    }

    fn queue_entries(&self, capabilities: ControllerCapabilities, info: &ControllerInfo) -> u16 {
        let granted = u16::try_from(capabilities.queue_entries_max()).unwrap_or(u16::MAX);
        let commands = if info.commands_max == 0 { u16::MAX } else { info.commands_max };
        self.options.queue_entries.min(granted).min(commands).max(2)
    }

    fn rdma_connect_admin(&self) -> RdmaConnect {
        let entries = ADMIN_QUEUE_ENTRIES;
        RdmaConnect {
            queue: QueueId::ADMIN,
            entries,
            request: CmRequestData::new(QueueId::ADMIN, entries, ControllerId(0)),
            in_capsule_bytes: 0,
        }
    }

    fn command(&self, step: &Step) -> Execute {
        let queue = QueueId::ADMIN;
        let mut transfer = Transfer::None;
        let sqe = match step {
            Step::ConnectAdmin => {
                transfer = connect_data(&self.options, ControllerId::DYNAMIC);
                let kato = u32::try_from(self.options.keep_alive.as_millis()).unwrap_or(u32::MAX);
                connect_command(&self.options, queue, ADMIN_QUEUE_ENTRIES, kato)
            }
            Step::ReadCapabilities(_) => PropertyGet::new(Property::CAPABILITIES).to_sqe(),
            Step::ReadVersion(..) => PropertyGet::new(Property::VERSION).to_sqe(),
            Step::Enable(enabling) => {
                let enabled = u64::from(Configuration::enabled(enabling.capabilities).0);
                PropertySet::new(Property::CONFIGURATION, enabled).to_sqe()
            }
            Step::IdentifyController(_) => {
                transfer = Transfer::FromController(Identify::SIZE);
                Identify::controller()
            }
            Step::SetNumberOfQueues(_) => SetFeatures::queue_count(self.options.io_queues.max(1)),
            _ => PropertyGet::new(Property::STATUS).to_sqe(),
        };
        Execute { queue, sqe, transfer, name: step.name() }
    }
}

impl Step {
    fn name(&self) -> &'static str {
        match self {
            Self::RdmaConnectAdmin => "opening the admin queue",
            Self::ConnectAdmin => "Connect on the admin queue",
            Self::AuthenticateAdmin(_) => "authentication",
            Self::ReadCapabilities(_) => "reading CAP",
            Self::ReadVersion(..) => "reading VS",
            Self::Enable(_) => "enabling the controller",
            Self::CheckReady(_) | Self::AwaitReady(_) => "reading CSTS",
            Self::IdentifyController(_) => "Identify Controller",
            Self::SetNumberOfQueues(_) => "Set Features (Number of Queues)",
            Self::ConnectIoQueues(_) => "connecting the I/O queues",
            Self::Live(_) | Self::Failed(_) => "nothing",
        }
    }

    fn check(&self, response: Cqe) -> Result<(), Error> {
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        Err(match self {
            Self::ConnectAdmin => {
                let (queue, result) = (QueueId::ADMIN, response.result_dword());
                Rejected::Connect { queue, status, result }.into()
            }
            other => Rejected::Command { command: other.name(), status }.into(),
        })
    }
}

impl Enabling {
    fn ready(self, status: ControllerStatus) -> Result<Step, Error> {
        let limit =
            self.capabilities.ready_timeout().clamp(STATUS_POLL_INTERVAL, READY_TIMEOUT_MAX);
        if status.is_fatal() {
            Err(Error::ControllerFatal)
        } else if status.is_ready() {
            Ok(Step::IdentifyController(self))
        } else if self.waited >= limit {
            Err(Error::Timeout { step: "enabling the controller (CSTS.RDY)", after: limit })
        } else {
            Ok(Step::AwaitReady(self))
        }
    }
}

fn check_capabilities(capabilities: ControllerCapabilities, purpose: Purpose) -> Result<(), Error> {
    let page_size = capabilities.page_size_min();
    if purpose == Purpose::Io && !capabilities.has_nvm_command_set() {
        Err(Incompatible::NoNvmCommandSet.into())
    } else if page_size > 4096 {
        Err(Incompatible::PageSize(page_size).into())
    } else {
        Ok(())
    }
}

fn transfer_bytes_max(capabilities: ControllerCapabilities, info: &ControllerInfo) -> u64 {
    let pages = |log2: u8| capabilities.page_size_min().checked_shl(u32::from(log2));
    let limit = match info.transfer_pages_log2 {
        // 2^20 pages of 4 KiB exceed the length of an SGL descriptor.
        Some(log2) => pages(log2.min(20)).unwrap_or(TRANSFER_BYTES_DEFAULT),
        None => TRANSFER_BYTES_DEFAULT,
    };
    limit.min(u64::from(SglDescriptor::KEYED_LENGTH_MAX) + 1 - capabilities.page_size_min())
}

fn in_capsule_bytes(info: &ControllerInfo) -> u32 {
    if !info.in_capsule_sgl {
        return 0;
    }
    let available = info.command_capsule_bytes.saturating_sub(Sqe::SIZE as u64);
    u32::try_from(available).unwrap_or(u32::MAX)
}
