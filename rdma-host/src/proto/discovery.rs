//! Reading of a discovery log of any size that may change meanwhile (Base 5.1.12.3.1).

use super::{Execute, Transfer};
use crate::{
    config::{DISCOVERY_ATTEMPTS, DISCOVERY_CHUNK_BYTES, DISCOVERY_RECORDS_MAX},
    error::{Error, Rejected, TargetMisbehaved},
    wire::{Cqe, DiscoveryEntry, DiscoveryHeader, GetLogPage, LogPage, QueueId, Status},
};

/// Consistent discovery log: it did not change while it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveryLog {
    /// Generation counter (GENCTR), incremented with every change of the log.
    pub generation: u64,
    /// Entries in the controller's order.
    pub entries: Vec<DiscoveryEntry>,
    /// The log page as it was sent, header and entries, if the reader [keeps
    /// it](DiscoveryRead::keeping_bytes); else empty.
    pub bytes: Vec<u8>,
}

/// State machine that reads the log. Call [`action`](Self::action), perform the action, pass the
/// outcome to [`handle`](Self::handle).
///
/// ```text
///      ┌──────────── another generation ───────────┐
///      ▼                                           │
///   Header ──► [ Page ]… ──► Check (header again) ─┴─► Done
/// ```
///
/// The change event is retained (RAE) until the last header is read, so that no change is missed: a
/// change before that shows in the generation, a later one raises another event.
#[derive(Debug)]
pub struct DiscoveryRead {
    chunk_bytes: u32,
    specific_field: u8,
    attempt: u8,
    entries: Vec<DiscoveryEntry>,
    keeps_bytes: bool,
    bytes: Vec<u8>,
    step: Step,
}

/// Next action of the driver.
#[derive(Debug)]
pub enum DiscoveryAction {
    /// The log is read.
    Done(DiscoveryLog),
    /// Send this command and report its response and data.
    Execute(Execute),
}

#[derive(Debug, Default)]
enum Step {
    #[default]
    Header,
    Page(DiscoveryHeader),
    /// Header read again, with the error status of a page, which may be caused by a log that has
    /// shrunk.
    Check(DiscoveryHeader, Option<Status>),
    Done(u64),
    Returned,
    Failed(Error),
}

impl DiscoveryRead {
    /// Creates a reader whose commands transfer at most `transfer_bytes_max` bytes.
    ///
    /// # Panics
    ///
    /// If that is less than one entry, 1,024 bytes. No controller has such a limit.
    #[must_use]
    pub fn new(transfer_bytes_max: u64) -> Self {
        let entry = DiscoveryEntry::SIZE as u64;
        assert!(transfer_bytes_max >= entry, "a command moves an entry at least");
        let whole = transfer_bytes_max.min(u64::from(DISCOVERY_CHUNK_BYTES)) / entry * entry;
        Self {
            chunk_bytes: u32::try_from(whole).unwrap_or(DISCOVERY_CHUNK_BYTES),
            specific_field: 0,
            attempt: 1,
            entries: Vec::new(),
            keeps_bytes: false,
            bytes: Vec::new(),
            step: Step::Header,
        }
    }

    /// Sets the Log Specific Parameter (LSP, Base figure 293): bit 1 for entries of this port only,
    /// bit 2 to include entries that are hidden otherwise.
    #[must_use]
    pub fn with_specific_field(mut self, specific_field: u8) -> Self {
        self.specific_field = specific_field;
        self
    }

    /// Keeps the bytes of the log page, too.
    #[must_use]
    pub fn keeping_bytes(mut self, keeps_bytes: bool) -> Self {
        self.keeps_bytes = keeps_bytes;
        self
    }

    /// Maximum transfer of one command in bytes.
    #[must_use]
    pub fn chunk_bytes(&self) -> u32 {
        self.chunk_bytes
    }

    /// Returns the next action of the driver. A complete log is returned once.
    ///
    /// # Errors
    ///
    /// The error that ended the reading, on every call.
    ///
    /// # Panics
    ///
    /// Once the log has been returned.
    pub fn action(&mut self) -> Result<DiscoveryAction, Error> {
        let command = match &self.step {
            Step::Header => self.header(true),
            Step::Check(..) => self.header(false),
            Step::Page(header) => self.page(header),
            Step::Done(generation) => {
                let entries = std::mem::take(&mut self.entries);
                let bytes = std::mem::take(&mut self.bytes);
                let generation = *generation;
                self.step = Step::Returned;
                return Ok(DiscoveryAction::Done(DiscoveryLog { generation, entries, bytes }));
            }
            Step::Returned => panic!("the log has been returned"),
            Step::Failed(error) => return Err(error.clone()),
        };
        Ok(DiscoveryAction::Execute(Execute {
            queue: QueueId::ADMIN,
            sqe: command.to_sqe(),
            transfer: Transfer::FromController(command.bytes as usize),
            name: NAME,
        }))
    }

    /// Passes the response and data of the command.
    ///
    /// # Errors
    ///
    /// When the response ends the reading.
    ///
    /// # Panics
    ///
    /// If the last action was not a command.
    pub fn handle(&mut self, response: Cqe, data: &[u8]) -> Result<(), Error> {
        let step = std::mem::take(&mut self.step);
        match self.advance(step, response.status(), data) {
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

    fn advance(&mut self, step: Step, status: Status, data: &[u8]) -> Result<Step, Error> {
        if status.code() == Status::DISCOVER_RESTART {
            return self.restart();
        }
        match step {
            Step::Page(header) if !status.is_success() => Ok(Step::Check(header, Some(status))),
            Step::Failed(error) => Err(error),
            _ if !status.is_success() => Err(refused(status)),
            Step::Header => {
                let header = DiscoveryHeader::parse(data)?;
                check(header)?;
                if self.keeps_bytes {
                    // What was not read of the header is reserved.
                    self.bytes = data.to_vec();
                    self.bytes.resize(DiscoveryHeader::SIZE as usize, 0);
                }
                Ok(self.next(header))
            }
            Step::Page(header) => {
                self.entries.extend(DiscoveryEntry::parse_all(data)?);
                if self.keeps_bytes {
                    self.bytes.extend(data);
                }
                Ok(self.next(header))
            }
            Step::Check(before, refusal) => {
                let unchanged = DiscoveryHeader::parse(data)? == before;
                match refusal {
                    _ if !unchanged => self.restart(),
                    Some(status) => Err(refused(status)),
                    None => Ok(Step::Done(before.generation)),
                }
            }
            Step::Done(_) | Step::Returned => panic!("no command was in flight"),
        }
    }

    fn restart(&mut self) -> Result<Step, Error> {
        if self.attempt == DISCOVERY_ATTEMPTS {
            return Err(TargetMisbehaved::DiscoveryLogChanges(DISCOVERY_ATTEMPTS).into());
        }
        self.attempt += 1;
        self.entries.clear();
        self.bytes.clear();
        Ok(Step::Header)
    }

    /// Returns the step that follows the entries read so far.
    fn next(&self, header: DiscoveryHeader) -> Step {
        if (self.entries.len() as u64) < header.records {
            Step::Page(header)
        } else {
            Step::Check(header, None)
        }
    }

    fn header(&self, retain_event: bool) -> GetLogPage {
        let bytes = DiscoveryHeader::READ;
        let specific_field = self.specific_field;
        GetLogPage { specific_field, retain_event, ..GetLogPage::new(LogPage::DISCOVERY, bytes) }
    }

    fn page(&self, header: &DiscoveryHeader) -> GetLogPage {
        let entry = DiscoveryEntry::SIZE as u64;
        let known = self.entries.len() as u64;
        let left = (header.records - known) * entry;
        let bytes = u32::try_from(left).unwrap_or(u32::MAX).min(self.chunk_bytes);
        let offset = u64::from(DiscoveryHeader::SIZE) + known * entry;
        GetLogPage { offset, bytes, ..self.header(true) }
    }
}

const NAME: &str = "reading the discovery log";

fn refused(status: Status) -> Error {
    Rejected::Command { command: NAME, status }.into()
}

/// Validates format and number of records before they are used.
fn check(header: DiscoveryHeader) -> Result<(), TargetMisbehaved> {
    let DiscoveryHeader { records, format, .. } = header;
    if format != 0 {
        return Err(TargetMisbehaved::DiscoveryLogFormat(format));
    }
    if records > DISCOVERY_RECORDS_MAX {
        let max = DISCOVERY_RECORDS_MAX;
        return Err(TargetMisbehaved::DiscoveryLogSize { records, max });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
