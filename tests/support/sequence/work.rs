//! Work requests and their completions.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use verbs::{
    Access, BindInfo, Buffer, CompletedWork, Completion, Error, PostBufferError, RemoteAddress,
    SgList,
};

use super::{
    At, Run,
    connection_end::{COMPLETED_MAX, KeyState, Pair, PostedBuffers, SIZE, range},
    host::{BUFFER_BYTES, DomainBuffer, SOURCE_BYTE},
};

/// A message that was posted.
pub(super) struct Message {
    /// Name of the end it is for.
    to: u32,
    length: usize,
    came: bool,
}

/// Operation of a request with buffers.
enum SendKind {
    Send,
    Invalidate(verbs::RemoteKey),
    Read(RemoteAddress),
    Write(RemoteAddress),
}

impl Run<'_> {
    pub(super) fn post_send(&mut self, at: At, value: u8) {
        let what = match (value % 8, self.peer_key(at)) {
            (7, Some(key)) => {
                self.note_invalidated(at, key);
                SendKind::Invalidate(key)
            }
            _ => SendKind::Send,
        };
        self.post(at, what, if value % 32 == 31 { 2 } else { 1 });
    }

    pub(super) fn post_read(&mut self, at: At, value: u8) {
        let host = &mut self.hosts[if value == 255 { at.host } else { 1 - at.host }];
        let Some(from) = host.exposed().map(|(source, _)| place(&source.buffer)) else { return };
        self.post(at, SendKind::Read(from), 1);
    }

    pub(super) fn post_write(&mut self, at: At, value: u8) {
        let key = self.peer_key(at).filter(|_| value.is_multiple_of(2));
        let sink = self.hosts[1 - at.host].exposed();
        let Some(to) = sink.map(|(_, sink)| place(&sink.buffer)) else { return };
        let to = RemoteAddress { key: key.unwrap_or(to.key), ..to };
        self.post(at, SendKind::Write(to), 1);
    }

    /// Posts a request with buffers: accepted exactly if there is a credit and the buffers belong
    /// to the domain.
    fn post(&mut self, at: At, what: SendKind, count: usize) {
        let tag = self.number();
        let host = &mut self.hosts[at.host];
        let Some(end) = host.ends[at.end].as_ref().filter(|end| end.is_live()) else { return };
        let (domain, to) = (end.domain, end.peer);
        let pieces: Vec<DomainBuffer> = (0..count).filter_map(|_| host.piece()).collect();
        let fits = !pieces.is_empty() && pieces.iter().all(|piece| piece.domain == domain);
        let domains: Vec<_> = pieces.iter().map(|piece| piece.domain).collect();
        let mut buffers = SgList::new();
        for mut piece in pieces {
            piece.buffer.fill(tag.to_le_bytes()[0]);
            piece.buffer.copy_in(0, &tag.to_le_bytes());
            buffers.push(piece.buffer).expect("four fit");
        }
        let ranges: Vec<_> = buffers.iter().map(range).collect();
        let Some(end) = host.ends[at.end].as_mut() else { return };
        let Some(pair) = end.live() else { return };
        let room = pair.send_credits() > 0;
        let posted = match what {
            SendKind::Send => pair.send(buffers, tag.into()),
            SendKind::Invalidate(key) => pair.send_with_invalidate(buffers, key, tag.into()),
            SendKind::Read(from) => pair.rdma_read(buffers, from, tag.into()),
            SendKind::Write(to) => pair.rdma_write(buffers, to, tag.into()),
        };
        assert_eq!(posted.is_ok(), fits && room, "{posted:?}, room {room}, fits {fits}");
        let reads = matches!(what, SendKind::Read(_));
        match posted {
            Ok(()) => {
                let length = ranges.len() * BUFFER_BYTES;
                end.sends.insert(tag.into(), PostedBuffers { ranges, reads });
                end.unflushed = true;
                if matches!(what, SendKind::Send | SendKind::Invalidate(_)) {
                    self.sent.insert(tag, Message { to, length, came: false });
                }
                self.count("posted");
            }
            Err(refused) => {
                let back: Vec<_> = refused.buffers.iter().map(range).collect();
                assert_eq!(back, ranges, "all are handed back");
                let pieces = refused.buffers.into_iter().zip(domains);
                host.free.extend(pieces.map(|(buffer, domain)| DomainBuffer { buffer, domain }));
                self.count("refused");
            }
        }
    }

    pub(super) fn post_inline(&mut self, at: At, value: u8) {
        let tag = self.number();
        let length = usize::from(value % 40);
        let mut message = [tag.to_le_bytes()[0]; 40];
        message[..4].copy_from_slice(&tag.to_le_bytes());
        let Some(end) = self.end(at) else { return };
        let to = end.peer;
        let Some(pair) = end.live() else { return };
        let room = pair.send_credits() > 0;
        let length = length.max(4);
        let posted = pair.send_inline(&message[..length]);
        let fits = length <= SIZE.max_inline_data as usize;
        assert_eq!(posted.is_ok(), fits && room, "{posted:?}, room {room}, {length} bytes");
        if posted.is_ok() {
            end.inline += 1;
            end.unflushed = true;
            self.sent.insert(tag, Message { to, length, came: false });
            self.count("posted inline");
        }
    }

    /// Posts a receive.
    pub(super) fn post_receive(&mut self, at: At) {
        let tag = u64::from(self.number());
        let host = &mut self.hosts[at.host];
        let Some(piece) = host.piece() else { return };
        let (place, domain) = (range(&piece.buffer), piece.domain);
        let pair = host.ends[at.end].as_mut().filter(|end| !matches!(end.pair, Pair::None));
        let Some(end) = pair else {
            host.free.push(piece);
            return;
        };
        let fits = domain == end.domain;
        let (posted, room) = match &mut end.pair {
            Pair::None => unreachable!("ends without a queue pair were sorted out"),
            Pair::Prepared(pair) => (pair.post_receive(piece.buffer, tag), None),
            Pair::Live(pair) => {
                let room = pair.receive_credits() > 0;
                (pair.post_receive(piece.buffer, tag), Some(room))
            }
        };
        let right = room.is_none_or(|room| posted.is_ok() == (room && fits));
        assert!(right, "{posted:?}, room {room:?}, fits {fits}");
        end.unflushed |= posted.is_ok();
        match posted {
            Ok(()) => {
                end.receives.insert(tag, PostedBuffers { ranges: vec![place], reads: false });
                self.count("receive posted");
            }
            Err(PostBufferError { buffer, error }) => {
                assert_eq!(range(&buffer), place, "it is handed back");
                assert!(matches!(error, Error::Misuse(_) | Error::QueueFull), "{error}");
                host.free.push(DomainBuffer { buffer, domain });
            }
        }
    }

    /// Rings the doorbell for queued work, which a device that is there accepts.
    pub(super) fn flush(&mut self, at: At) {
        let host = &mut self.hosts[at.host];
        let Some(end) = host.ends[at.end].as_mut() else { return };
        let flushed = match &mut end.pair {
            Pair::None => return,
            Pair::Prepared(pair) => pair.flush(),
            Pair::Live(pair) => pair.flush(),
        };
        let gone = host.removals > end.removals;
        assert!(flushed.is_ok() || gone, "the device is there: {flushed:?}");
        end.unflushed = flushed.is_err();
    }

    /// Key by which this end reaches its peer's memory through a window.
    fn peer_key(&mut self, At { host, end }: At) -> Option<verbs::RemoteKey> {
        let name = self.hosts[host].ends[end].as_ref()?.peer;
        let peer = self.hosts[1 - host].ends.iter().flatten().find(|one| one.name == name)?;
        peer.windows.keys().next().copied()
    }

    fn note_invalidated(&mut self, At { host, end }: At, key: verbs::RemoteKey) {
        let Some(name) = self.hosts[host].ends[end].as_ref().map(|end| end.peer) else { return };
        let ends = self.hosts[1 - host].ends.iter_mut().flatten();
        if let Some((_, state)) =
            ends.filter(|one| one.name == name).find_map(|one| one.windows.get_mut(&key))
        {
            *state = KeyState::Ending;
        }
    }

    /// Binds a window over memory that the peer may write.
    pub(super) fn bind(&mut self, at: At, value: u8) {
        let host = &mut self.hosts[at.host];
        let Some(piece) = host.piece() else { return };
        let Some(end) = host.ends[at.end].as_mut() else { return };
        let Pair::Live(pair) = &mut end.pair else { return };
        if end.free_windows.is_empty() {
            let fresh = host.domain.as_ref().and_then(|domain| domain.window().ok());
            let Some(fresh) = fresh else { return };
            match pair.add_window(fresh) {
                Ok(window) => end.free_windows.push(window),
                Err(error) => assert!(matches!(error, Error::Misuse(_)), "another domain's"),
            }
        }
        let Some(&window) = end.free_windows.last() else { return };
        let access = if value & 1 == 0 { Access::REMOTE_WRITE } else { Access::REMOTE_READ };
        let length = usize::from(value) % (BUFFER_BYTES + 2);
        match pair.bind(window, &BindInfo { buffer: &piece.buffer, range: 0..length, access }) {
            Ok(key) => {
                assert!(
                    (1..=BUFFER_BYTES).contains(&length),
                    "{length} bytes are not in the buffer"
                );
                end.free_windows.pop();
                end.windows.insert(key, (window, KeyState::InUse));
                end.inline += 1;
                end.unflushed = true;
                self.count("bound");
            }
            Err(error) => {
                assert!(matches!(error, Error::Misuse(_) | Error::QueueFull), "{error}");
                assert!(!pair.is_bound(window), "it was refused");
            }
        }
        self.hosts[at.host].free.push(piece);
    }

    pub(super) fn invalidate(&mut self, at: At) {
        let Some(end) = self.end(at) else { return };
        let Some((&key, &(window, state))) = end.windows.iter().next() else { return };
        let Some(pair) = end.live() else { return };
        match pair.local_invalidate(window) {
            Ok(()) => {
                end.windows.insert(key, (window, KeyState::Ending));
                end.inline += 1;
                end.unflushed = true;
                self.count("invalidated");
            }
            Err(Error::QueueFull) => {}
            Err(error) => assert_eq!(state, KeyState::Ending, "the key is in use: {error}"),
        }
    }

    /// Notes that a window is free, if it is.
    pub(super) fn reclaim(&mut self, at: At) {
        let Some(end) = self.end(at) else { return };
        let Some((&key, &(window, state))) = end.windows.iter().next() else { return };
        let Some(pair) = end.live() else { return };
        if pair.is_bound(window) {
            return;
        }
        assert_eq!(state, KeyState::Ending, "nobody has taken the key out of use");
        end.windows.remove(&key);
        end.free_windows.push(window);
        self.count("reclaimed");
    }

    pub(super) fn arm(&mut self, host: usize, queue: usize) {
        let host = &mut self.hosts[host];
        let removed = host.removals > 0;
        let Some(queue) = &mut host.queues[queue] else { return };
        let armed = queue.raw.arm();
        assert!(armed.is_ok() || removed, "the device is there: {armed:?}");
        (queue.armed, queue.awaited) = (armed.is_ok(), false);
    }

    /// Polls for completions, and completes them.
    pub(super) fn poll(&mut self, host: usize, queue: usize, value: u8) -> usize {
        let mut batch = [Completion::default(); 8];
        let most = usize::from(value % 8) + 1;
        let duplicates = self.faults.duplicates;
        let state = &mut self.hosts[host];
        let Some(queue) = &mut state.queues[queue] else { return 0 };
        let woken = is_readable(queue.raw.as_fd());
        let count = match queue.raw.poll(&mut batch[..most]) {
            Ok(count) => count,
            Err(error) => {
                assert!(duplicates, "no more came than there is room for: {error}");
                state.overrun = true;
                return 0;
            }
        };
        assert!(count == 0 || !queue.awaited || woken, "nobody was woken");
        queue.awaited = count == 0 && queue.armed;
        queue.armed &= count == 0;
        if queue.awaited {
            self.count("awaited");
        }
        for completion in &batch[..count] {
            self.take(host, completion);
        }
        count
    }

    /// Passes a completion to its end.
    fn take(&mut self, host: usize, completion: &Completion) {
        let of = |end: &Option<super::connection_end::ConnectionEnd>| {
            end.as_ref().and_then(super::connection_end::ConnectionEnd::number)
                == Some(completion.queue_pair())
        };
        match self.hosts[host].ends.iter().position(of) {
            Some(end) => self.complete(At { host, end }, completion),
            None => self.count("of a closed queue pair"),
        }
    }

    pub(super) fn complete(&mut self, at: At, completion: &Completion) {
        // An overtaken send counts as done with the completion of a later one.
        let overtaken = self.faults.reorders && !completion.is_receive();
        let excused = self.faults.duplicates || overtaken;
        let host = &mut self.hosts[at.host];
        let Some(end) = host.ends[at.end].as_mut() else { return };
        let pair = match &mut end.pair {
            Pair::Live(pair) => pair,
            Pair::Prepared(_) => return end.early.push(*completion),
            Pair::None => return,
        };
        let completed = pair.complete(completion);
        let Ok(completed) = completed else {
            assert!(excused, "{completion:?} is of nothing that is outstanding");
            return;
        };
        if end.completed.len() == COMPLETED_MAX {
            end.completed.pop_front();
        }
        end.completed.push_back(*completion);
        let domain = end.domain;
        let (posted, tag, buffers) = match completed {
            CompletedWork::Credit => {
                end.credited += 1;
                return self.count(format!("{:?}", completion.status()));
            }
            CompletedWork::Send { tag, buffers } => (&mut end.sends, tag, buffers),
            CompletedWork::Receive { tag, buffer, .. } => (&mut end.receives, tag, buffer.into()),
        };
        let held = posted.remove(&tag).unwrap_or_else(|| panic!("{tag} was not outstanding"));
        let buffers: Vec<Buffer> = buffers.into_iter().collect();
        let ranges: Vec<_> = buffers.iter().map(range).collect();
        assert_eq!(held.ranges, ranges, "other buffers than were posted");
        if completion.status().is_success() {
            if completion.is_receive() {
                self.check_message(at, completion, &buffers[0]);
            } else if held.reads {
                assert_eq!(
                    contents(&buffers[0], BUFFER_BYTES),
                    [SOURCE_BYTE; BUFFER_BYTES],
                    "it read another's"
                );
            }
        }
        let pieces = buffers.into_iter().map(|buffer| DomainBuffer { buffer, domain });
        self.hosts[at.host].free.extend(pieces);
        self.count(format!("{:?}", completion.status()));
    }

    /// Checks that a message was sent to this end, and arrives whole, once and in order.
    fn check_message(&mut self, at: At, completion: &Completion, buffer: &Buffer) {
        let length = usize::try_from(completion.length()).expect("a small number");
        let bytes = contents(buffer, length);
        let name = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"));
        let message = self.sent.get_mut(&name).expect("it was sent");
        assert_eq!(message.length, length, "a message was cut");
        assert!(bytes[4..].iter().all(|byte| *byte == name.to_le_bytes()[0]), "{bytes:?}");
        assert!(!std::mem::replace(&mut message.came, true), "message {name} came twice");
        let to = message.to;
        let in_order = !self.faults.reorders;
        let Some(end) = self.end(at) else { return };
        assert!(to == end.name || to == 0, "it is for {to}, and came to {}", end.name);
        let before = end.last_message.replace(name);
        assert!(!in_order || before < Some(name), "{name} came after {before:?}");
        self.count("message");
    }
}

fn place(buffer: &Buffer) -> RemoteAddress {
    RemoteAddress { address: buffer.address(), key: buffer.remote_key() }
}

fn contents(buffer: &Buffer, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    buffer.copy_out(0, &mut bytes);
    bytes
}

fn is_readable(file: std::os::fd::BorrowedFd<'_>) -> bool {
    if cfg!(miri) {
        return true; // Miri knows no poll(2)
    }
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&file, PollFlags::IN)], Some(&now)).expect("it can be polled") > 0
}
