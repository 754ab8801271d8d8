//! Identification of a namespace: Identify Namespace, then its identification descriptors.

use super::{Execute, Transfer};
use crate::{
    error::{Error, Misuse, Rejected},
    wire::{
        Cqe, Identify, NamespaceId, NamespaceIdDescriptors, NamespaceInfo, QueueId, Status, Version,
    },
};

/// State machine that identifies one namespace. Call [`action`](Self::action), perform the action,
/// pass the outcome to [`handle`](Self::handle).
#[derive(Debug)]
pub struct IdentifyNamespace {
    id: NamespaceId,
    /// True if the controller supports Namespace Identification Descriptors.
    has_descriptors: bool,
    step: Step,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Namespace,
    /// Extended format of protection information, by the index of the LBA format.
    ExtendedFormat(NamespaceInfo, usize),
    Descriptors(NamespaceInfo),
    Done(NamespaceInfo),
}

/// Next action of the driver.
#[derive(Debug)]
pub enum IdentifyNamespaceAction {
    /// None: the namespace is identified.
    Done(NamespaceInfo),
    /// Send this command on the admin queue.
    Execute(Execute),
}

/// First version in which Namespace Identification Descriptors are mandatory.
const DESCRIPTORS_SINCE: Version = Version(0x0001_0300);

const IDENTIFY_NAMESPACE: &str = "Identify Namespace";
const IDENTIFY_FORMATS: &str = "Identify Namespace (NVM command set)";
const IDENTIFY_DESCRIPTORS: &str = "Identify (namespace names)";

impl IdentifyNamespace {
    /// Creates the state machine for a namespace of a controller of this version.
    #[must_use]
    pub fn new(id: NamespaceId, version: Version) -> Self {
        Self { id, has_descriptors: version >= DESCRIPTORS_SINCE, step: Step::Namespace }
    }

    /// Next action of the driver.
    #[must_use]
    pub fn action(&self) -> IdentifyNamespaceAction {
        let (sqe, name) = match self.step {
            Step::Done(info) => return IdentifyNamespaceAction::Done(info),
            Step::Namespace => (Identify::namespace(self.id), IDENTIFY_NAMESPACE),
            Step::ExtendedFormat(..) => (Identify::nvm_namespace(self.id), IDENTIFY_FORMATS),
            Step::Descriptors(_) => {
                (Identify::namespace_id_descriptors(self.id), IDENTIFY_DESCRIPTORS)
            }
        };
        let transfer = Transfer::FromController(Identify::SIZE);
        IdentifyNamespaceAction::Execute(Execute { queue: QueueId::ADMIN, sqe, transfer, name })
    }

    /// Passes the response and data of the command. A permanent error of the descriptor list, or of
    /// the extended formats, means that the controller has none.
    ///
    /// # Errors
    ///
    /// [`Misuse::NoNamespace`] when the namespace does not exist or is not active; otherwise the
    /// error that prevents its identification.
    pub fn handle(&mut self, response: Cqe, data: &[u8]) -> Result<(), Error> {
        let status = response.status();
        if status.code() == Status::INVALID_NAMESPACE {
            // Some targets return this status where others return a namespace of size 0.
            return Err(Misuse::NoNamespace(self.id).into());
        }
        self.step = match self.step {
            Step::Namespace if status.is_success() => {
                let info = NamespaceInfo::parse(self.id, data)?;
                match info.metadata.protection {
                    Some(_) => Step::ExtendedFormat(info, NamespaceInfo::format_index(data)),
                    None => self.after_formats(info),
                }
            }
            Step::ExtendedFormat(info, index) if status.is_success() => {
                self.after_formats(info.with_extended_format(index, data)?)
            }
            Step::ExtendedFormat(info, _) if is_final(status) => self.after_formats(info),
            Step::ExtendedFormat(..) => {
                return Err(Rejected::Command { command: IDENTIFY_FORMATS, status }.into());
            }
            Step::Namespace => {
                return Err(Rejected::Command { command: IDENTIFY_NAMESPACE, status }.into());
            }
            Step::Descriptors(info) if status.is_success() => {
                Step::Done(info.with_id_descriptors(NamespaceIdDescriptors::parse(data)?)?)
            }
            Step::Descriptors(info) if is_final(status) => Step::Done(info),
            Step::Descriptors(_) => {
                return Err(Rejected::Command { command: IDENTIFY_DESCRIPTORS, status }.into());
            }
            done @ Step::Done(_) => done,
        };
        Ok(())
    }

    fn after_formats(&self, info: NamespaceInfo) -> Step {
        if self.has_descriptors { Step::Descriptors(info) } else { Step::Done(info) }
    }
}

/// Returns true if the same command would fail again.
fn is_final(status: Status) -> bool {
    let unknown = [Status::INVALID_OPCODE, Status::INVALID_FIELD];
    status.do_not_retry() || unknown.contains(&status.code())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{CommandId, GuardType};
    use uuid::Uuid;

    const ID: NamespaceId = NamespaceId(3);

    fn answer(status: Status) -> Cqe {
        Cqe::new(CommandId(0), status, 0)
    }

    /// Identify Namespace data of 8 blocks.
    fn structure() -> Vec<u8> {
        let mut bytes = vec![0; Identify::SIZE];
        (bytes[0], bytes[130]) = (8, 9);
        bytes
    }

    /// State machine that has received Identify Namespace.
    fn built(version: u32) -> IdentifyNamespace {
        let mut identify = IdentifyNamespace::new(ID, Version(version));
        let IdentifyNamespaceAction::Execute(command) = identify.action() else {
            panic!("it asks first")
        };
        assert_eq!((command.name, command.sqe.namespace()), (IDENTIFY_NAMESPACE, ID));
        identify.handle(answer(Status::SUCCESS), &structure()).unwrap();
        identify
    }

    fn result(identify: &IdentifyNamespace) -> NamespaceInfo {
        let IdentifyNamespaceAction::Done(info) = identify.action() else { panic!("it is done") };
        info
    }

    #[test]
    fn descriptors_are_read_where_the_version_has_them() {
        assert_eq!(result(&built(0x0001_0200)).uuid, None);
        let mut identify = built(0x0001_0300);
        let IdentifyNamespaceAction::Execute(command) = identify.action() else {
            panic!("it asks for names")
        };
        assert_eq!((command.name, command.sqe.namespace()), (IDENTIFY_DESCRIPTORS, ID));
        let mut list = vec![0; Identify::SIZE];
        (list[0], list[1], list[19]) = (3, 16, 1);
        identify.handle(answer(Status::SUCCESS), &list).unwrap();
        let info = result(&identify);
        assert_eq!((info.id, info.blocks, info.uuid), (ID, 8, Some(Uuid::from_u128(1))));
    }

    #[test]
    fn a_controller_without_descriptors_is_accepted() {
        for status in
            [Status::INVALID_FIELD, Status::INVALID_OPCODE, Status(0x006).with_do_not_retry()]
        {
            let mut identify = built(0x0001_0300);
            identify.handle(answer(status), &[0; Identify::SIZE]).unwrap();
            assert_eq!(result(&identify).uuid, None);
        }
        let error = built(0x0001_0300).handle(answer(Status(0x006)), &[]).unwrap_err();
        assert!(
            error.to_string().starts_with(IDENTIFY_DESCRIPTORS),
            "a passing failure is no answer: {error}"
        );
    }

    #[test]
    fn extended_formats_are_read_where_there_is_protection_information() {
        let mut protected = structure();
        (protected[26], protected[29], protected[128]) = (0x10, 1, 16);
        let mut formats = vec![0; Identify::SIZE];
        formats[13] = 1;
        for (status, guard) in [
            (Status::SUCCESS, GuardType::Crc64),
            (Status::INVALID_FIELD.with_do_not_retry(), GuardType::Crc16),
        ] {
            let mut identify = IdentifyNamespace::new(ID, Version(0x0001_0200));
            identify.handle(answer(Status::SUCCESS), &protected).unwrap();
            let IdentifyNamespaceAction::Execute(command) = identify.action() else {
                panic!("it asks for the formats")
            };
            assert_eq!(command.name, IDENTIFY_FORMATS);
            let error = identify.handle(answer(Status(0x006)), &[]).unwrap_err();
            assert!(error.to_string().starts_with(IDENTIFY_FORMATS), "{error}");
            identify.handle(answer(status), &formats).unwrap();
            let protection = result(&identify).metadata.protection.unwrap();
            assert_eq!(protection.guard, guard);
        }
    }

    #[test]
    fn a_namespace_may_be_gone_at_any_step() {
        let gone = |mut identify: IdentifyNamespace, status, data: &[u8]| {
            let error = identify.handle(answer(status), data).unwrap_err();
            assert!(matches!(error, Error::Misuse(Misuse::NoNamespace(ID))), "{error}");
        };
        let new = || IdentifyNamespace::new(ID, Version(0x0001_0300));
        gone(new(), Status::INVALID_NAMESPACE, &[]);
        gone(new(), Status::SUCCESS, &[0; Identify::SIZE]);
        gone(built(0x0001_0300), Status::INVALID_NAMESPACE.with_do_not_retry(), &[]);
        let error = new().handle(answer(Status(0x006)), &[]).unwrap_err();
        assert!(error.to_string().starts_with(IDENTIFY_NAMESPACE), "{error}");
    }
}
