//! Finding out what a namespace is: how it is built, then by which names it is known.

use super::{Execute, Transfer};
use crate::error::{Error, Misuse, Rejected};
use crate::wire::{
    Cqe, Identify, NamespaceId, NamespaceIdDescriptors, NamespaceInfo, QueueId, Status, Version,
};

/// A look at one namespace: send what [`action`](Self::action) says, feed what comes.
#[derive(Debug)]
pub struct Inspection {
    id: NamespaceId,
    /// Whether the controller knows lists of names.
    names: bool,
    step: Step,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Structure,
    Names(NamespaceInfo),
    Done(NamespaceInfo),
}

/// What to do next.
#[derive(Debug)]
pub enum Inspect {
    /// Nothing: this is the namespace.
    Done(NamespaceInfo),
    /// Send this on the admin queue.
    Execute(Execute),
}

/// The first version whose controllers must list names; older ones need not answer at all.
const LISTS_NAMES: Version = Version(0x0001_0300);

const STRUCTURE: &str = "Identify Namespace";
const NAMES: &str = "Identify (namespace names)";

impl Inspection {
    /// Of a namespace, at a controller of this version.
    #[must_use]
    pub fn new(id: NamespaceId, version: Version) -> Self {
        Self { id, names: version >= LISTS_NAMES, step: Step::Structure }
    }

    /// What to do next.
    #[must_use]
    pub fn action(&self) -> Inspect {
        let (sqe, name) = match self.step {
            Step::Done(info) => return Inspect::Done(info),
            Step::Structure => (Identify::namespace(self.id), STRUCTURE),
            Step::Names(_) => (Identify::namespace_id_descriptors(self.id), NAMES),
        };
        let transfer = Transfer::FromController(Identify::SIZE);
        Inspect::Execute(Execute { queue: QueueId::ADMIN, sqe, transfer, name })
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
            Step::Structure if status.is_success() => {
                let info = NamespaceInfo::parse(self.id, data)?;
                if self.names { Step::Names(info) } else { Step::Done(info) }
            }
            Step::Structure => return Err(Rejected::Command { command: STRUCTURE, status }.into()),
            Step::Names(info) if status.is_success() => {
                Step::Done(info.with_id_descriptors(NamespaceIdDescriptors::parse(data)?))
            }
            Step::Names(info) if is_final(status) => Step::Done(info),
            Step::Names(_) => return Err(Rejected::Command { command: NAMES, status }.into()),
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

    /// An inspection that has seen the structure.
    fn built(version: u32) -> Inspection {
        let mut inspection = Inspection::new(ID, Version(version));
        let Inspect::Execute(command) = inspection.action() else { panic!("it asks first") };
        assert_eq!((command.name, command.sqe.namespace()), (STRUCTURE, ID));
        inspection.handle(answer(Status::SUCCESS), &structure()).unwrap();
        inspection
    }

    fn result(inspection: &Inspection) -> NamespaceInfo {
        let Inspect::Done(info) = inspection.action() else { panic!("it is done") };
        info
    }

    #[test]
    fn names_are_asked_for_where_there_are_lists_of_them() {
        assert_eq!(result(&built(0x0001_0200)).uuid, None);
        let mut inspection = built(0x0001_0300);
        let Inspect::Execute(command) = inspection.action() else { panic!("it asks for names") };
        assert_eq!((command.name, command.sqe.namespace()), (NAMES, ID));
        let mut list = vec![0; Identify::SIZE];
        (list[0], list[1], list[19]) = (3, 16, 1);
        inspection.handle(answer(Status::SUCCESS), &list).unwrap();
        let info = result(&inspection);
        assert_eq!((info.id, info.blocks, info.uuid), (ID, 8, Some(Uuid::from_u128(1))));
    }

    #[test]
    fn who_lists_no_names_is_put_up_with() {
        for status in
            [Status::INVALID_FIELD, Status::INVALID_OPCODE, Status(0x006).with_do_not_retry()]
        {
            let mut inspection = built(0x0001_0300);
            inspection.handle(answer(status), &[0; Identify::SIZE]).unwrap();
            assert_eq!(result(&inspection).uuid, None);
        }
        let error = built(0x0001_0300).handle(answer(Status(0x006)), &[]).unwrap_err();
        assert!(error.to_string().starts_with(NAMES), "a passing failure is no answer: {error}");
    }

    #[test]
    fn a_namespace_may_be_gone_at_any_step() {
        let gone = |mut inspection: Inspection, status, data: &[u8]| {
            let error = inspection.handle(answer(status), data).unwrap_err();
            assert!(matches!(error, Error::Misuse(Misuse::NoNamespace(ID))), "{error}");
        };
        let new = || Inspection::new(ID, Version(0x0001_0300));
        gone(new(), Status::INVALID_NAMESPACE, &[]);
        gone(new(), Status::SUCCESS, &[0; Identify::SIZE]);
        gone(built(0x0001_0300), Status::INVALID_NAMESPACE.with_do_not_retry(), &[]);
        let error = new().handle(answer(Status(0x006)), &[]).unwrap_err();
        assert!(error.to_string().starts_with(STRUCTURE), "{error}");
    }
}
