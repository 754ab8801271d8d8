use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::*;

/// Stands for a registration, and notes that it was dropped while the memory was still there.
struct NotedDrop {
    memory: std::sync::Weak<Mapping>,
    dropped_in_time: Arc<AtomicBool>,
    drops: Arc<AtomicUsize>,
}

impl Registration for NotedDrop {
    fn innermost(&self) -> &dyn Any {
        self
    }
}

impl Drop for NotedDrop {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::Relaxed);
        self.dropped_in_time.store(self.memory.upgrade().is_some(), Ordering::Relaxed);
    }
}

fn region(length: usize, agent: Agent) -> Region {
    region_for(length, agent, Access::LOCAL_WRITE)
}

fn region_for(length: usize, agent: Agent, access: Access) -> Region {
    let memory = Arc::new(Mapping::allocate(length, agent, access).expect("there is memory"));
    let keys = Keys { local: 7, remote: RemoteKey(9) };
    Region { registration: Box::new(()), memory, keys, domain: 1 }
}

fn buffer(length: usize) -> Buffer {
    Buffer::whole(region(length, Agent::Device))
}

#[test]
fn memory_begins_as_zeroes_on_a_page() {
    let buffer = buffer(10_000);
    let mut bytes = vec![1; 10_000];
    buffer.copy_out(0, &mut bytes);
    assert!(bytes.iter().all(|&byte| byte == 0));
    assert_eq!(buffer.address() % page_size() as u64, 0);
}

#[test]
fn what_is_copied_in_comes_out() {
    for agent in [Agent::Device, Agent::Thread] {
        let mut buffer: Buffer = Buffer::whole(region(64, agent));
        buffer.fill(0xAA);
        buffer.copy_in(3, b"hello");
        let mut bytes = [0; 7];
        buffer.copy_out(2, &mut bytes);
        assert_eq!(&bytes, b"\xAAhello\xAA");
    }
}

#[test]
fn parts_are_disjoint_and_rejoin() {
    let mut head = buffer(100);
    let start = head.address();
    let mut tail = head.split_off(60);
    assert_eq!((head.len(), tail.len()), (60, 40));
    assert_eq!(tail.address(), start + 60);
    head.fill(1);
    tail.fill(2);
    let end = tail.split_off(30);
    let end = head.unsplit(end).expect_err("30 bytes are missing between them");
    head.unsplit(tail).expect("it follows directly");
    head.unsplit(end).expect("it follows directly");
    let mut bytes = [0; 100];
    head.copy_out(0, &mut bytes);
    assert!(bytes[..60].iter().all(|&byte| byte == 1));
    assert!(bytes[60..].iter().all(|&byte| byte == 2));
}

#[test]
fn parts_of_different_registrations_do_not_join() {
    let mut one = buffer(10);
    assert!(one.unsplit(buffer(10)).is_err());
}

#[test]
fn an_empty_part_is_allowed() {
    let mut whole = buffer(10);
    let empty = whole.split_off(10);
    assert!(empty.is_empty());
    empty.copy_out(0, &mut []);
    whole.unsplit(empty).expect("it follows directly");
}

#[test]
#[should_panic(expected = "5 bytes at 96 are not within a buffer of 100 bytes")]
fn copying_beyond_the_end_panics() {
    buffer(100).copy_in(96, b"hello");
}

#[test]
#[should_panic(expected = "5 bytes at 58 are not within a buffer of 60 bytes")]
fn a_part_does_not_reach_into_the_next() {
    let mut head = buffer(100);
    let _tail = head.split_off(60);
    head.copy_out(58, &mut [0; 5]);
}

#[test]
#[should_panic(expected = "cannot split 10 bytes at 11")]
fn splitting_beyond_the_end_panics() {
    let _ = buffer(10).split_off(11);
}

#[test]
#[should_panic(expected = "only memory shared between threads")]
fn device_access_is_refused_for_real_devices() {
    region(10, Agent::Device).memory.device_write(0, b"x");
}

#[test]
fn the_registration_goes_before_the_memory_and_after_the_last_part() {
    let (in_time, drops) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut region = region(100, Agent::Device);
    region.registration = Box::new(NotedDrop {
        memory: Arc::downgrade(&region.memory),
        dropped_in_time: in_time.clone(),
        drops: drops.clone(),
    });
    let mut head: Buffer = Buffer::whole(region);
    let tail = head.split_off(50);
    drop(head);
    assert_eq!(drops.load(Ordering::Relaxed), 0, "a part still needs it");
    drop(tail);
    assert_eq!(drops.load(Ordering::Relaxed), 1);
    assert!(in_time.load(Ordering::Relaxed), "the memory outlived the registration");
}

#[test]
fn nonsense_lengths_are_refused() {
    for length in [0, usize::MAX, usize::MAX / 2] {
        assert!(Mapping::allocate(length, Agent::Device, Access::NONE).is_none(), "{length}");
    }
}

#[test]
fn remote_write_implies_local_write() {
    assert!(Access::REMOTE_WRITE.contains(Access::LOCAL_WRITE));
    assert!(!Access::REMOTE_READ.contains(Access::LOCAL_WRITE));
    let both = Access::REMOTE_READ | Access::LOCAL_WRITE;
    assert!(both.contains(Access::REMOTE_READ) && !both.contains(Access::REMOTE_WRITE));
}

#[test]
fn a_thread_may_play_the_device() {
    let region = region(64, Agent::Thread);
    let memory = region.memory.clone();
    let buffer: Buffer = Buffer::whole(region);
    std::thread::scope(|scope| {
        scope.spawn(|| memory.device_write(0, &[5; 64]));
        let mut bytes = [0; 64];
        buffer.copy_out(0, &mut bytes); // races, and is allowed to
        assert!(bytes.iter().all(|&byte| byte == 0 || byte == 5));
    });
}

/// Program of a provider that keeps the mapping of a buffer and writes it later.
#[test]
fn bytes_that_are_borrowed_are_written_by_no_provider() {
    let region = region_for(64, Agent::Thread, Access::NONE);
    let memory = region.memory.clone();
    let mut buffer = Buffer::whole(region);
    buffer.copy_in(0, b"before");
    let read_only = buffer.into_read_only().expect("it is for sending only");
    let bytes = read_only.bytes(0, 6).expect("they are within");
    let late = std::panic::AssertUnwindSafe(|| memory.device_write(0, b"behind"));
    assert!(std::panic::catch_unwind(late).is_err(), "the mapping knows that it is read-only");
    assert_eq!(bytes, b"before");
}

#[test]
fn bytes_that_a_device_may_write_are_not_borrowed() {
    for access in [Access::LOCAL_WRITE, Access::REMOTE_WRITE, Access::BIND | Access::LOCAL_WRITE] {
        let region = region_for(64, Agent::Thread, access);
        assert!(Buffer::whole(region).into_read_only().is_none(), "{access:?}");
    }
}

/// Owner that notes that it was dropped.
struct Owner(Box<[u8]>, Arc<AtomicBool>);

// SAFETY: the bytes live as long as the box, and the tests make no reference to them meanwhile.
unsafe impl MemoryOwner for Owner {
    fn memory(&self) -> (NonNull<u8>, usize) {
        (NonNull::from(&self.0[..]).cast(), self.0.len())
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.1.store(true, Ordering::Relaxed);
    }
}

fn shared(mapping: Option<Mapping>) -> SharedMemory {
    let memory = Arc::new(mapping.expect("there is memory"));
    let keys = Keys { local: 7, remote: RemoteKey(9) };
    SharedMemory::new(Region { registration: Box::new(()), memory, keys, domain: 1 })
}

#[test]
fn parts_of_shared_memory_are_at_any_offset_and_may_overlap() {
    let pages = Mapping::shared_pages(10_000, None, Agent::Device, Access::LOCAL_WRITE);
    let memory = shared(pages);
    let (late, early) = (memory.part(5_000, 5_000), memory.part(0, 6_000));
    let (late, early) = (late.expect("within"), early.expect("within"));
    assert_eq!((early.address(), late.address()), (memory.address(), memory.address() + 5_000));
    assert!(!early.is_local());
    assert!(memory.part(5_001, 5_000).is_none() && memory.part(usize::MAX, 2).is_none());
    let Err(ReleaseError::InUse(memory)) = memory.release() else { panic!("parts are in use") };
    drop((late, early));
    memory.release().expect("nothing uses it");
}

#[test]
#[should_panic(expected = "by its owner")]
fn bytes_of_shared_memory_are_not_copied() {
    let memory = shared(Mapping::shared_pages(64, None, Agent::Device, Access::LOCAL_WRITE));
    memory.part(0, 64).expect("within").copy_in(0, b"x");
}

#[test]
fn an_owner_lives_until_its_memory_is_released() {
    let dropped = Arc::new(AtomicBool::new(false));
    let owner = Owner(vec![0; 4096].into(), Arc::clone(&dropped));
    let memory = shared(Mapping::shared_with(owner, Agent::Device, Access::LOCAL_WRITE));
    let Err(ReleaseError::InUse(memory)) = ({
        let _other = memory.clone();
        memory.release()
    }) else {
        panic!("another handle is in use")
    };
    assert!(!dropped.load(Ordering::Relaxed));
    memory.release().expect("nothing uses it");
    assert!(dropped.load(Ordering::Relaxed));
    let none = Owner(Box::new([]), Arc::clone(&dropped));
    assert!(Mapping::shared_with(none, Agent::Device, Access::LOCAL_WRITE).is_none());
}
