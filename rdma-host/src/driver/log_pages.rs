//! Log pages of a controller that is live.

use verbs::Provider;

use super::admin::AdminClient;
use super::controller::Controller;
use crate::config::ADMIN_TRANSFER_MAX;
use crate::error::Error;
use crate::proto::{Negotiated, Transfer};
use crate::wire::{
    AnaLog, ChangedNamespaceList, EffectsLog, ErrorLogEntry, FirmwareSlotLog, GetLogPage,
    HealthLog, LogPage,
};

/// Reads log pages of one controller. What was changed is told once only: reading a page clears
/// the event that led to it.
pub(super) struct LogPages<'a> {
    pub(super) admin: &'a AdminClient,
    pub(super) negotiated: &'a Negotiated,
}

impl LogPages<'_> {
    pub(super) async fn ana(&self) -> Result<AnaLog, Error> {
        /// RGO: groups without their namespaces.
        const GROUPS_ONLY: u8 = 1;
        let info = &self.negotiated.info;
        let whole = AnaLog::size(info.ana_groups, info.active_namespaces_max);
        let mut command = GetLogPage::new(LogPage::ANA, self.at_most(whole));
        if u64::from(command.bytes) < whole {
            command.specific_field = GROUPS_ONLY;
            command.bytes = self.at_most(AnaLog::size(info.ana_groups, 0));
        }
        Ok(AnaLog::parse(&self.read(command).await?)?)
    }

    pub(super) async fn changed(&self) -> Result<ChangedNamespaceList, Error> {
        let page = self.page(LogPage::CHANGED_NAMESPACES, ChangedNamespaceList::SIZE).await?;
        Ok(ChangedNamespaceList::parse(&page)?)
    }

    pub(super) async fn effects(&self) -> Result<EffectsLog, Error> {
        Ok(EffectsLog::parse(&self.page(LogPage::EFFECTS, EffectsLog::SIZE).await?)?)
    }

    pub(super) async fn errors(&self) -> Result<Vec<ErrorLogEntry>, Error> {
        let entries = usize::from(self.negotiated.info.error_entries_max);
        Ok(ErrorLogEntry::parse_all(
            &self.page(LogPage::ERROR, entries * ErrorLogEntry::SIZE).await?,
        )?)
    }

    pub(super) async fn firmware(&self) -> Result<FirmwareSlotLog, Error> {
        let page = self.page(LogPage::FIRMWARE_SLOTS, FirmwareSlotLog::SIZE).await?;
        Ok(FirmwareSlotLog::parse(&page)?)
    }

    pub(super) async fn health(&self) -> Result<HealthLog, Error> {
        Ok(HealthLog::parse(&self.page(LogPage::HEALTH, HealthLog::SIZE).await?)?)
    }

    /// The beginning of a page, as far as one command carries it.
    async fn page(&self, page: LogPage, bytes: usize) -> Result<Vec<u8>, Error> {
        self.read(GetLogPage::new(page, self.at_most(bytes as u64))).await
    }

    /// What one command may carry of so many bytes; both limits are multiples of 64.
    fn at_most(&self, bytes: u64) -> u32 {
        let limit = self.negotiated.transfer_bytes_max.min(ADMIN_TRANSFER_MAX as u64);
        u32::try_from(bytes.min(limit)).unwrap_or(u32::MAX)
    }

    async fn read(&self, command: GetLogPage) -> Result<Vec<u8>, Error> {
        let name = match command.page {
            LogPage::ANA => "Get Log Page (asymmetric namespace access)",
            LogPage::CHANGED_NAMESPACES => "Get Log Page (changed namespaces)",
            LogPage::EFFECTS => "Get Log Page (effects)",
            LogPage::ERROR => "Get Log Page (errors)",
            LogPage::FIRMWARE_SLOTS => "Get Log Page (firmware slots)",
            LogPage::HEALTH => "Get Log Page (health)",
            _ => "Get Log Page",
        };
        let transfer = Transfer::FromController(command.bytes as usize);
        self.admin.execute(name, command.to_sqe(), transfer).await.map(|(_, data)| data)
    }
}

impl<P: Provider> Controller<P> {
    /// Reads how well this controller reaches which namespaces (ANA), and clears the event that
    /// goes with it. Where all namespaces do not fit one command, groups are without theirs.
    ///
    /// # Errors
    ///
    /// When the controller refuses, is gone, or writes what can't be read.
    pub async fn ana_log(&self) -> Result<AnaLog, Error> {
        self.log_pages(&self.negotiated()).ana().await
    }

    /// Reads which namespaces changed since this was last read, and so forgets them. The
    /// controller's own task reads it after every event: [`notices`](Self::notices) has it all.
    ///
    /// # Errors
    ///
    /// As [`ana_log`](Self::ana_log).
    pub async fn changed_namespaces(&self) -> Result<ChangedNamespaceList, Error> {
        self.log_pages(&self.negotiated()).changed().await
    }

    /// Reads which commands the controller takes.
    ///
    /// # Errors
    ///
    /// As [`ana_log`](Self::ana_log).
    pub async fn effects(&self) -> Result<EffectsLog, Error> {
        self.log_pages(&self.negotiated()).effects().await
    }

    /// Reads the errors that the controller remembers, as far as one command carries them.
    ///
    /// # Errors
    ///
    /// As [`ana_log`](Self::ana_log).
    pub async fn error_log(&self) -> Result<Vec<ErrorLogEntry>, Error> {
        self.log_pages(&self.negotiated()).errors().await
    }

    /// Reads which firmware the controller has.
    ///
    /// # Errors
    ///
    /// As [`ana_log`](Self::ana_log).
    pub async fn firmware_slots(&self) -> Result<FirmwareSlotLog, Error> {
        self.log_pages(&self.negotiated()).firmware().await
    }

    /// Reads how well the controller is.
    ///
    /// # Errors
    ///
    /// As [`ana_log`](Self::ana_log).
    pub async fn health(&self) -> Result<HealthLog, Error> {
        self.log_pages(&self.negotiated()).health().await
    }

    fn log_pages<'a>(&'a self, negotiated: &'a Negotiated) -> LogPages<'a> {
        LogPages { admin: self.admin(), negotiated }
    }
}
