//! Pools: many buffers of one size in one registration, on pages as they are wanted.

use std::{fmt, sync::Arc};

use crate::{
    Access, Buffer, Error, PageSize, ProtectionDomain, Provider,
    memory::{Mapping, Pages, Region, page_size},
};

/// Options of a pool.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PoolOptions {
    /// Number of buffers.
    pub count: usize,
    /// Size of a buffer, in bytes.
    pub size: usize,
    /// Access to the buffers.
    pub access: Access,
    /// Size of the pages. Larger ones need fewer entries in the device's page tables.
    pub pages: PageSize,
    /// True to fail without pages of this size. Otherwise smaller ones are taken, and the
    /// [report](Pool::report) says so.
    pub require_pages: bool,
    /// NUMA node, as far as it has memory: most often that of the device,
    /// [`Limits::numa_node`](crate::Limits::numa_node).
    pub node: Option<u32>,
}

/// Buffers of one size, cut from one registration. Taking and giving back allocates nothing.
///
/// Dropping it forgets the buffers that are in it; those that were taken live on.
#[derive(Debug)]
pub struct Pool {
    free: Vec<Buffer>,
    region: Arc<Region>,
    size: usize,
    capacity: usize,
    report: PoolReport,
}

/// Memory that a pool got.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PoolReport {
    /// Number of bytes registered, with the rest of the last page.
    pub bytes: usize,
    /// Size of a page, in bytes.
    pub page_bytes: usize,
    /// Reason for smaller pages than were requested, if they are.
    pub pages_refused: Option<String>,
    /// NUMA node that was requested, and the result.
    pub placement: Placement,
}

/// NUMA placement of memory.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Placement {
    /// No node was requested: the pages are on the node of the thread that first uses them.
    #[default]
    Anywhere,
    /// The kernel was asked for pages of a node.
    Preferred {
        /// Node requested.
        node: u32,
        /// Node of the first page; `None` if the kernel does not tell.
        found: Option<u32>,
    },
    /// The kernel would not be asked.
    Refused {
        /// Node requested.
        node: u32,
        /// Error of the system.
        reason: String,
    },
}

impl<P: Provider> ProtectionDomain<P> {
    /// Allocates and registers a pool.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate); [`Error::HugePages`] with the remedy, if the pages are
    /// demanded and cannot be had.
    pub fn pool(&self, options: PoolOptions) -> Result<Pool, Error> {
        let PoolOptions { count, size, access, .. } = options;
        let length = count.saturating_mul(size);
        if length == 0 {
            return Err(Error::Misuse("a pool has at least one buffer of at least one byte"));
        }
        let made = PoolMemory::new(length, options)?;
        let PoolMemory { pages, page_bytes, pages_refused, refused } = made;
        let (region, found) = match pages {
            Some(pages) => {
                let memory = Arc::new(Mapping::of_pages(pages, length, self.agent(), access));
                let region = self.region(memory.clone())?;
                // Only now is every page there.
                (region, memory.node())
            }
            None => {
                let memory = Mapping::allocate(length, self.agent(), access)
                    .ok_or(Error::Allocate { length })?;
                (self.region(Arc::new(memory))?, None)
            }
        };
        let placement = match (options.node, refused) {
            (None, _) => Placement::Anywhere,
            (Some(node), None) => Placement::Preferred { node, found },
            (Some(node), Some(reason)) => Placement::Refused { node, reason },
        };
        let region = Arc::new(region);
        let bytes = length.next_multiple_of(page_bytes);
        let report = PoolReport { bytes, page_bytes, pages_refused, placement };
        let free = cut(Buffer::of(region.clone()), count, size);
        Ok(Pool { free, region, size, capacity: count, report })
    }
}

/// Memory for a pool, before it is registered.
struct PoolMemory {
    /// `None` for memory of the heap.
    pages: Option<Pages>,
    page_bytes: usize,
    pages_refused: Option<String>,
    /// Reason why no node could be requested.
    refused: Option<String>,
}

impl PoolMemory {
    fn new(length: usize, options: PoolOptions) -> Result<Self, Error> {
        let PoolOptions { pages: size, require_pages, node, .. } = options;
        let mut pages_refused = None;
        let mut pages = None;
        if size != PageSize::Base {
            match Pages::map(length, size) {
                Ok(mapped) => pages = Some((mapped, size.bytes())),
                Err(source) if require_pages => {
                    return Err(Error::HugePages { length, page_bytes: size.bytes(), source });
                }
                Err(error) => pages_refused = Some(error.to_string()),
            }
        }
        // A node is requested for a range of addresses. On the heap the request would stay with the
        // addresses after the memory is freed and reused.
        if pages.is_none() && node.is_some() {
            let mapped = Pages::map(length, PageSize::Base);
            pages = Some((mapped.map_err(|_| Error::Allocate { length })?, page_size()));
        }
        let refused = match (&pages, node) {
            (Some((pages, _)), Some(node)) => pages.prefer(node).err().map(|why| why.to_string()),
            _ => None,
        };
        let page_bytes = pages.as_ref().map_or_else(page_size, |(_, bytes)| *bytes);
        Ok(Self { pages: pages.map(|(pages, _)| pages), page_bytes, pages_refused, refused })
    }
}

/// All buffers of a registration, so that the first is taken first.
fn cut(mut rest: Buffer, count: usize, size: usize) -> Vec<Buffer> {
    let mut cut = Vec::with_capacity(count);
    for index in (1..count).rev() {
        cut.push(rest.split_off(index * size));
    }
    cut.push(rest);
    cut
}

impl Pool {
    /// A buffer, if one is left. What its last owner put there is still in it.
    pub fn take(&mut self) -> Option<Buffer> {
        self.free.pop()
    }

    /// Takes a buffer back.
    ///
    /// # Errors
    ///
    /// Hands it back when it is of another pool, or only part of one.
    pub fn give(&mut self, buffer: Buffer) -> Result<(), Buffer> {
        let ours = Arc::ptr_eq(&self.region, &buffer.region());
        let one = buffer.len() == self.size && buffer.offset().is_multiple_of(self.size);
        if !ours || !one {
            return Err(buffer);
        }
        self.free.push(buffer);
        Ok(())
    }

    /// Memory that the pool got.
    pub fn report(&self) -> &PoolReport {
        &self.report
    }

    /// Number of buffers in the pool.
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// Number of buffers, taken or not.
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

impl fmt::Display for PoolReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes on pages of {}", self.bytes, self.page_bytes)?;
        if let Some(reason) = &self.pages_refused {
            write!(f, " (larger ones were refused: {reason})")?;
        }
        match &self.placement {
            Placement::Anywhere => write!(f, ", on any NUMA node"),
            Placement::Preferred { node, found: Some(found) } if node == found => {
                write!(f, ", on NUMA node {node}")
            }
            Placement::Preferred { node, found: Some(found) } => {
                write!(f, ", on NUMA node {found} though {node} was asked for")
            }
            Placement::Preferred { node, found: None } => {
                write!(f, ", asked for on NUMA node {node}")
            }
            Placement::Refused { node, reason } => {
                write!(f, ", on any NUMA node ({node} was refused: {reason})")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_was_asked_for_in_vain() {
        let mut report = PoolReport {
            bytes: 8192,
            page_bytes: 4096,
            pages_refused: None,
            placement: Placement::Anywhere,
        };
        assert_eq!(report.to_string(), "8192 bytes on pages of 4096, on any NUMA node");
        report.pages_refused = Some("Cannot allocate memory".to_owned());
        report.placement = Placement::Preferred { node: 1, found: Some(0) };
        assert_eq!(
            report.to_string(),
            "8192 bytes on pages of 4096 (larger ones were refused: Cannot allocate memory), on \
             NUMA node 0 though 1 was asked for"
        );
        report.placement = Placement::Refused { node: 1, reason: "no".to_owned() };
        assert!(report.to_string().ends_with("on any NUMA node (1 was refused: no)"));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri maps plain pages only")]
    fn pages_of_a_node_are_not_of_the_heap() {
        let options = PoolOptions { node: Some(0), ..PoolOptions::default() };
        let made = PoolMemory::new(5000, options).expect("there is memory");
        assert!(made.pages.is_some());
        let made = PoolMemory::new(5000, PoolOptions::default()).expect("there is memory");
        assert!(made.pages.is_none());
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri maps plain pages only")]
    fn huge_pages_are_had_refused_in_the_report_or_an_error() {
        let wish = PoolOptions { pages: PageSize::OneGibibyte, ..PoolOptions::default() };
        let demand = PoolOptions { require_pages: true, ..wish };
        // A pebibyte of them is nowhere in reserve.
        let made = PoolMemory::new(1 << 50, wish).expect("smaller pages will do");
        assert!(made.pages.is_none() && made.pages_refused.is_some());
        let error = PoolMemory::new(1 << 50, demand).err().expect("smaller pages will not do");
        assert!(matches!(error, Error::HugePages { page_bytes: 0x4000_0000, .. }), "{error}");
    }
}
