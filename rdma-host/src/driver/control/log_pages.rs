//! Log pages of a live controller.

use verbs::Provider;

use crate::{
    config::ADMIN_TRANSFER_MAX,
    driver::data_path::admin_queue::client::AdminClient,
    error::Error,
    proto::{Negotiated, Transfer},
    wire::{
        AnaLog, ChangedNamespaceList, EffectsLog, EnduranceGroupLog, ErrorLogEntry,
        FeatureEffectsLog, FirmwareSlotLog, GetLogPage, HealthLog, LogPage,
        ReservationNotification, RotationalMediaLog, SupportedLogPages,
    },
};

/// Reader of a controller's log pages. Reading a page clears the event that refers to it, and the
/// list of changed namespaces.
pub(crate) struct LogPages<'a, P: Provider> {
    pub(crate) admin: &'a AdminClient<P>,
    pub(crate) negotiated: &'a Negotiated,
}

impl<P: Provider> LogPages<'_, P> {
    pub(crate) async fn ana(&self) -> Result<AnaLog, Error> {
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

    pub(crate) async fn changed(&self) -> Result<ChangedNamespaceList, Error> {
        let page = self.page(LogPage::CHANGED_NAMESPACES, ChangedNamespaceList::SIZE).await?;
        Ok(ChangedNamespaceList::parse(&page)?)
    }

    pub(crate) async fn effects(&self, command_set: u8) -> Result<EffectsLog, Error> {
        let page = GetLogPage::new(LogPage::EFFECTS, self.at_most(EffectsLog::SIZE as u64));
        Ok(EffectsLog::parse(&self.read(GetLogPage { command_set, ..page }).await?)?)
    }

    pub(crate) async fn errors(&self) -> Result<Vec<ErrorLogEntry>, Error> {
        let entries = usize::from(self.negotiated.info.error_entries_max);
        Ok(ErrorLogEntry::parse_all(
            &self.page(LogPage::ERROR, entries * ErrorLogEntry::SIZE).await?,
        )?)
    }

    pub(crate) async fn firmware(&self) -> Result<FirmwareSlotLog, Error> {
        let page = self.page(LogPage::FIRMWARE_SLOTS, FirmwareSlotLog::SIZE).await?;
        Ok(FirmwareSlotLog::parse(&page)?)
    }

    pub(crate) async fn health(&self) -> Result<HealthLog, Error> {
        Ok(HealthLog::parse(&self.page(LogPage::HEALTH, HealthLog::SIZE).await?)?)
    }

    pub(crate) async fn supported(&self) -> Result<SupportedLogPages, Error> {
        let page = self.page(LogPage::SUPPORTED, SupportedLogPages::SIZE).await?;
        Ok(SupportedLogPages::parse(&page)?)
    }

    pub(crate) async fn features(&self) -> Result<FeatureEffectsLog, Error> {
        let page = self.page(LogPage::FEATURES, FeatureEffectsLog::SIZE).await?;
        Ok(FeatureEffectsLog::parse(&page)?)
    }

    pub(crate) async fn endurance_group(&self, group: u16) -> Result<EnduranceGroupLog, Error> {
        let size = EnduranceGroupLog::SIZE;
        let page = self.page_of(LogPage::ENDURANCE_GROUP, group, size).await?;
        Ok(EnduranceGroupLog::parse(&page)?)
    }

    pub(crate) async fn rotational_media(&self, group: u16) -> Result<RotationalMediaLog, Error> {
        let size = RotationalMediaLog::SIZE;
        let page = self.page_of(LogPage::ROTATIONAL_MEDIA, group, size).await?;
        Ok(RotationalMediaLog::parse(&page)?)
    }

    pub(crate) async fn reservation_notification(&self) -> Result<ReservationNotification, Error> {
        let size = ReservationNotification::SIZE;
        let page = self.page(LogPage::RESERVATION_NOTIFICATION, size).await?;
        Ok(ReservationNotification::parse(&page)?)
    }

    /// Reads a page of the object with this identifier (LSI).
    async fn page_of(&self, page: LogPage, id: u16, bytes: usize) -> Result<Vec<u8>, Error> {
        let command = GetLogPage::new(page, self.at_most(bytes as u64));
        self.read(GetLogPage { specific_identifier: id, ..command }).await
    }

    /// Reads a page from its beginning, as much as fits one command.
    async fn page(&self, page: LogPage, bytes: usize) -> Result<Vec<u8>, Error> {
        self.page_of(page, 0, bytes).await
    }

    /// Limits a length to that of one command; both limits are multiples of 64.
    fn at_most(&self, bytes: u64) -> u32 {
        let limit = self.negotiated.transfer_bytes_max.min(ADMIN_TRANSFER_MAX as u64);
        u32::try_from(bytes.min(limit)).unwrap_or(u32::MAX)
    }

    async fn read(&self, command: GetLogPage) -> Result<Vec<u8>, Error> {
        let name = match command.page {
            LogPage::ANA => "Get Log Page (asymmetric namespace access)",
            LogPage::CHANGED_NAMESPACES => "Get Log Page (changed namespaces)",
            LogPage::EFFECTS => "Get Log Page (effects)",
            LogPage::ENDURANCE_GROUP => "Get Log Page (endurance group)",
            LogPage::ERROR => "Get Log Page (errors)",
            LogPage::FEATURES => "Get Log Page (features supported and effects)",
            LogPage::FIRMWARE_SLOTS => "Get Log Page (firmware slots)",
            LogPage::HEALTH => "Get Log Page (health)",
            LogPage::RESERVATION_NOTIFICATION => "Get Log Page (reservation notification)",
            LogPage::ROTATIONAL_MEDIA => "Get Log Page (rotational media)",
            LogPage::SUPPORTED => "Get Log Page (supported log pages)",
            _ => "Get Log Page",
        };
        let transfer = Transfer::FromController(command.bytes as usize);
        self.admin.execute(name, command.to_sqe(), transfer).await.map(|(_, data)| data)
    }
}
