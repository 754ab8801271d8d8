//! Finding out what a namespace is: how it is built, then by which names it is known.

use super::{Execute, Transfer};
use crate::error::{Error, Misuse, Rejected};
use crate::wire::{
    Cqe, Identify, NamespaceId, NamespaceIdDescriptors, NamespaceInfo, QueueId, Status, Version,
};

/// A look at one namespace: send what [`action`](Self::action) says, feed what comes.
#[derive(Debug)]
pub struct IdentifyNamespace {
    id: NamespaceId,
    /// Whether the controller knows lists of names.
    has_descriptors: bool,
    step: Step,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Namespace,
    Descriptors(NamespaceInfo),
    Done(NamespaceInfo),
}

/// What to do next.
#[derive(Debug)]
pub enum IdentifyNamespaceAction {
    /// Nothing: this is the namespace.
    Done(NamespaceInfo),
    /// Send this on the admin queue.
    Execute(Execute),
}

/// The first version whose controllers must list names; older ones need not answer at all.
const DESCRIPTORS_SINCE: Version = Version(0x0001_0300);

const IDENTIFY_NAMESPACE: &str = "Identify Namespace";
const IDENTIFY_DESCRIPTORS: &str = "Identify (namespace names)";

impl IdentifyNamespace {
    /// Of a namespace, at a controller of this version.
    #[must_use]
    pub fn new(id: NamespaceId, version: Version) -> Self {
        Self { id, has_descriptors: version >= DESCRIPTORS_SINCE, step: Step::Namespace }
    }

    /// What to do next.
    #[must_use]
    pub fn action(&self) -> IdentifyNamespaceAction {
        let (sqe, name) = match self.step {
            Step::Done(info) => return IdentifyNamespaceAction::Done(info),
            Step::Namespace => (Identify::namespace(self.id), IDENTIFY_NAMESPACE),
            Step::Descriptors(_) => {
                (Identify::namespace_id_descriptors(self.id), IDENTIFY_DESCRIPTORS)
            }
        };
        let transfer = Transfer::FromController(Identify::SIZE);
        IdentifyNamespaceAction::Execute(Execute { queue: QueueId::ADMIN, sqe, transfer, name })
    }

    /// What the controller answered. A controller that refuses for good to list names has none.
    ///
    /// # Errors
    ///
    /// [`Misuse::NoNamespace`] when it is not there; otherwise what keeps us from knowing it.
    pub fn handle(&mut self, response: Cqe, data: &[u8]) -> Result<(), Error> {
        let status = response.status();
        if status.code() == Status::INVALID_NAMESPACE {
            // Some targets refuse where others describe a namespace of no blocks.
            return Err(Misuse::NoNamespace(self.id).into());
        }
        self.step = match self.step {
            Step::Namespace if status.is_success() => {
                let info = NamespaceInfo::parse(self.id, data)?;
                if self.has_descriptors { Step::Descriptors(info) } else { Step::Done(info) }
            }
            Step::Namespace => {
                return Err(Rejected::Command { command: IDENTIFY_NAMESPACE, status }.into());
            }
            Step::Descriptors(info) if status.is_success() => {
                Step::Done(info.with_id_descriptors(NamespaceIdDescriptors::parse(data)?))
            }
            Step::Descriptors(info) if is_final(status) => Step::Done(info),
            Step::Descriptors(_) => {
                return Err(Rejected::Command { command: IDENTIFY_DESCRIPTORS, status }.into());
            }
            done @ Step::Done(_) => done,
        };
        Ok(())
    }
}

/// Whether it would refuse again.
fn is_final(status: Status) -> bool {
    let unknown = [Status::INVALID_OPCODE, Status::INVALID_FIELD];
    status.do_not_retry() || unknown.contains(&status.code())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::CommandId;
    use uuid::Uuid;

    const ID: NamespaceId = NamespaceId(3);

    fn answer(status: Status) -> Cqe {
        Cqe::new(CommandId(0), status, 0)
    }

    /// A namespace of 8 blocks.
    fn structure() -> Vec<u8> {
        let mut bytes = vec![0; Identify::SIZE];
        (bytes[0], bytes[130]) = (8, 9);
        bytes
    }

    /// An identify that has seen the structure.
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
    fn names_are_asked_for_where_there_are_lists_of_them() {
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
    fn who_lists_no_names_is_put_up_with() {
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
