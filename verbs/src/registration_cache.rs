//! A cache of registrations: memory that is used again need not be registered again.
//!
//! # Why it is keyed by allocation, and not by address
//!
//! A registration is of pages, not of addresses. Once memory is unmapped its address may be given
//! to other pages, and a cache that looks addresses up finds the old registration, by which the
//! device reads and writes pages that the program no longer has: data is lost without an error.
//! Libraries that cache by address therefore watch every `munmap`, `mremap`, `brk` and `madvise`
//! of the process, by patching the C library or by asking the kernel (`userfaultfd`), and have a
//! long history of ways around that watch.
//!
//! Here memory is first moved into an [`Allocation`], which has a number that is never used
//! again, and which cannot be freed, moved or mapped anew while a registration of it is cached,
//! because the registration holds it. There is nothing to watch.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    Access, Buffer, CallerMemory, Domain, Error, Provider, RefusedMemory,
    memory::{Mapping, Region},
};

/// Memory of the caller that a [`RegistrationCache`] may register, in one domain or in several,
/// one after another.
///
/// It has one owner. While it is registered for use it is in the [`Buffer`]:
///
/// ```compile_fail,E0382
/// # fn twice(cache: &mut verbs::RegistrationCache, domain: &verbs::Domain,
/// #          memory: verbs::Allocation) {
/// cache.register(domain, memory, verbs::Access::LOCAL_WRITE);
/// cache.register(domain, memory, verbs::Access::LOCAL_WRITE); // moved into the first
/// # }
/// ```
#[derive(Debug)]
pub struct Allocation {
    memory: Arc<Mapping>,
    identity: Arc<Identity>,
}

/// Lives as long as somebody has the allocation, or a buffer may give it back.
#[derive(Debug)]
struct Identity(u64);

impl Allocation {
    /// Of memory that is going to be used with the devices of provider `P`.
    ///
    /// # Errors
    ///
    /// [`Error::Misuse`], with the memory handed back, when it has no bytes.
    pub fn new<P: Provider, M: CallerMemory>(memory: M) -> Result<Self, RefusedMemory<M>> {
        let memory = Mapping::of_vector(memory.into_vector(), P::AGENT).map_err(|empty| {
            let error = Error::Misuse("memory of no length cannot be registered");
            RefusedMemory { error, memory: M::from_vector(empty) }
        })?;
        let identity = Identity(NEXT.fetch_add(1, Ordering::Relaxed));
        Ok(Self { memory: Arc::new(memory), identity: Arc::new(identity) })
    }

    /// The memory again.
    ///
    /// # Errors
    ///
    /// Hands the allocation back while a registration of it is cached:
    /// [`RegistrationCache::invalidate`] first.
    pub fn into_memory<M: CallerMemory>(self) -> Result<M, Self> {
        let Self { memory, identity } = self;
        match Arc::try_unwrap(memory) {
            Ok(memory) => Ok(M::from_vector(memory.into_vector())),
            Err(memory) => Err(Self { memory, identity }),
        }
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Never: memory of no length is refused.
    pub fn is_empty(&self) -> bool {
        self.memory.is_empty()
    }
}

/// How much a [`RegistrationCache`] keeps registered at most, in use or not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CacheLimits {
    /// Registrations.
    pub entries: usize,
    /// Bytes registered. Memory that is registered in two domains counts twice.
    pub bytes: usize,
}

impl Default for CacheLimits {
    /// 1,024 registrations of 1 GiB together: devices begin to miss in their own tables of pages
    /// and keys beyond some thousands.
    fn default() -> Self {
        Self { entries: 1024, bytes: 1 << 30 }
    }
}

/// What a cache has done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CacheCounters {
    /// Memory was registered already.
    pub hits: u64,
    /// It had to be registered.
    pub misses: u64,
    /// Registrations that had to go for others.
    pub evictions: u64,
    /// Registrations that went because their memory was given up, or was
    /// [taken out](RegistrationCache::invalidate).
    pub invalidations: u64,
    /// Memory that was refused, since what is in use filled the cache.
    pub refusals: u64,
}

/// Keeps memory registered that is not in use, within limits; what was used least recently goes
/// first. What is in use never goes.
///
/// A cached registration is in force: with an access of a peer's in it, a peer that was told the
/// key can use it between two uses, too. Register for [`Access::BIND`] and bind windows where that
/// is too much.
///
/// ```no_run
/// # fn example(one: &verbs::Domain, other: &verbs::Domain) -> Result<(), verbs::Error> {
/// use verbs::{Access, Allocation, CacheLimits, RdmaCore, RegistrationCache};
///
/// let mut cache = RegistrationCache::new(CacheLimits::default());
/// let memory = Allocation::new::<RdmaCore, _>(vec![0; 1 << 20])?;
/// let buffer = cache.register(one, memory, Access::LOCAL_WRITE)?; // a miss
/// // ... post it, retire it ...
/// let memory = cache.release(buffer).expect("it is whole, and of this cache");
/// let buffer = cache.register(other, memory, Access::LOCAL_WRITE)?; // another miss
/// let memory = cache.release(buffer).expect("it is whole, and of this cache");
/// let buffer = cache.register(one, memory, Access::LOCAL_WRITE)?; // a hit
/// # drop(buffer);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RegistrationCache {
    limits: CacheLimits,
    entries: HashMap<Key, Entry>,
    bytes: usize,
    time: u64,
    counters: CacheCounters,
}

/// Which memory, where, and for what.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Key {
    allocation: u64,
    domain: u64,
    access: Access,
}

#[derive(Debug)]
struct Entry {
    region: Arc<Region>,
    identity: Weak<Identity>,
    /// While a buffer has the memory.
    lent: Option<Arc<Identity>>,
    /// When it was last given out.
    used: u64,
}

impl Entry {
    /// Whether somebody but the cache has the registration: a buffer, or a bound window.
    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.region) > 1
    }

    /// Whether nobody can ask for it any more: the buffer was dropped, or the allocation was.
    fn is_dead(&self) -> bool {
        !self.is_in_use() && (self.lent.is_some() || self.identity.strong_count() == 0)
    }
}

impl RegistrationCache {
    /// An empty one.
    pub fn new(limits: CacheLimits) -> Self {
        let counters = CacheCounters::default();
        Self { limits, entries: HashMap::new(), bytes: 0, time: 0, counters }
    }

    /// Registers an allocation in a domain, if it is not registered there already.
    ///
    /// # Errors
    ///
    /// Hands the allocation back with what [`Domain::register`] says, or with
    /// [`Error::CacheFull`]: what is in use and this together are beyond the limits.
    pub fn register<P: Provider, N>(
        &mut self,
        domain: &Domain<P, N>,
        allocation: Allocation,
        access: Access,
    ) -> Result<Buffer<N>, RefusedMemory<Allocation>> {
        let Allocation { memory, identity } = allocation;
        let key = Key { allocation: identity.0, domain: domain.identity(), access };
        self.time += 1;
        if let Some(entry) = self.entries.get_mut(&key) {
            self.counters.hits += 1;
            entry.used = self.time;
            entry.lent = Some(identity);
            return Ok(Buffer::of(entry.region.clone()));
        }
        match self.miss(domain, &memory, access) {
            Ok(region) => {
                let (region, used) = (Arc::new(region), self.time);
                let buffer = Buffer::of(region.clone());
                let weak = Arc::downgrade(&identity);
                let entry = Entry { region, identity: weak, lent: Some(identity), used };
                self.bytes += memory.len();
                self.entries.insert(key, entry);
                Ok(buffer)
            }
            Err(error) => Err(RefusedMemory { error, memory: Allocation { memory, identity } }),
        }
    }

    fn miss<P: Provider, N>(
        &mut self,
        domain: &Domain<P, N>,
        memory: &Arc<Mapping>,
        access: Access,
    ) -> Result<Region, Error> {
        self.sweep();
        if !self.make_room(memory.len()) {
            self.counters.refusals += 1;
            let CacheLimits { entries, bytes } = self.limits;
            return Err(Error::CacheFull { length: memory.len(), entries, bytes });
        }
        let region = domain.region(memory, access)?;
        self.counters.misses += 1;
        Ok(region)
    }

    /// Takes an allocation back; its registration stays, for the next time.
    ///
    /// # Errors
    ///
    /// Hands the buffer back when it is of no registration of this cache, or only part of one.
    pub fn release<N>(&mut self, buffer: Buffer<N>) -> Result<Allocation, Buffer<N>> {
        let region = buffer.region();
        let all = buffer.len() == region.memory.len();
        let found = self
            .entries
            .values_mut()
            .filter(|entry| all && Arc::ptr_eq(&entry.region, &region))
            .find_map(|entry| entry.lent.take());
        match found {
            Some(identity) => Ok(Allocation { memory: region.memory.clone(), identity }),
            None => Err(buffer),
        }
    }

    /// Deregisters an allocation everywhere, so that its memory can be
    /// [taken out](Allocation::into_memory). Says how many registrations went; one with a window
    /// bound to it stays until that is reclaimed.
    pub fn invalidate(&mut self, allocation: &Allocation) -> usize {
        let before = self.entries.len();
        let number = allocation.identity.0;
        self.remove(|key, entry| key.allocation == number && !entry.is_in_use());
        let gone = before - self.entries.len();
        self.counters.invalidations += gone as u64;
        gone
    }

    /// Deregisters all that is not in use.
    pub fn clear(&mut self) {
        let before = self.entries.len();
        self.remove(|_, entry| !entry.is_in_use());
        self.counters.invalidations += (before - self.entries.len()) as u64;
    }

    /// What it has done.
    pub fn counters(&self) -> CacheCounters {
        self.counters
    }

    /// How much it keeps registered now.
    pub fn used(&self) -> CacheLimits {
        CacheLimits { entries: self.entries.len(), bytes: self.bytes }
    }

    /// Drops registrations of memory that was given up.
    fn sweep(&mut self) {
        let before = self.entries.len();
        self.remove(|_, entry| entry.is_dead());
        self.counters.invalidations += (before - self.entries.len()) as u64;
    }

    /// Evicts until one more registration of so many bytes fits; says whether it does. Where it
    /// cannot fit nothing is evicted.
    fn make_room(&mut self, length: usize) -> bool {
        let in_use = self.entries.values().filter(|entry| entry.is_in_use());
        let (count, bytes) =
            in_use.fold((0, 0), |(count, bytes), entry| (count + 1, bytes + entry.region.length()));
        if count >= self.limits.entries || length > self.limits.bytes.saturating_sub(bytes) {
            return false;
        }
        while self.entries.len() >= self.limits.entries || length > self.limits.bytes - self.bytes {
            let idle = self.entries.iter().filter(|(_, entry)| !entry.is_in_use());
            let Some((&oldest, _)) = idle.min_by_key(|(_, entry)| entry.used) else { return false };
            self.remove(|key, _| *key == oldest);
            self.counters.evictions += 1;
        }
        true
    }

    fn remove(&mut self, mut goes: impl FnMut(&Key, &Entry) -> bool) {
        let bytes = &mut self.bytes;
        self.entries.retain(|key, entry| {
            let goes = goes(key, entry);
            if goes {
                *bytes -= entry.region.length();
            }
            !goes
        });
    }
}

static NEXT: AtomicU64 = AtomicU64::new(1);
