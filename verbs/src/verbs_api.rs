//! Calls by which a device's plug-in is used.

/// Set of calls of a device's plug-in that post sends and poll completions. Both do the same; their
/// cost depends on the plug-in.
///
/// [`Legacy`](Self::Legacy) is the default, because a message costs less by it. Counted by
/// callgrind over rxe and rdma-core 44 (`examples/cost_device.rs`), instructions of this
/// crate, the plug-in and libc together:
///
/// ```text
///                                          legacy   extended
///   a send of 64 inline bytes, in a chain     235        206
///   the same, by itself                       344        362
///   a completion, sixteen at a time            63        116
///   a poll that finds nothing                  96        130
/// ```
///
/// Besides, before rdma-core 64 rxe's extended calls add up the lengths of lists of segments
/// wrongly, and before 61 they end a poll twice; neither is relied on here.
///
/// Seen to work: on rxe, by this crate's tests and the conformance suite. Not tried: any hardware.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum VerbsApi {
    /// `ibv_post_send` and `ibv_poll_cq`, which every device has.
    #[default]
    Legacy,
    /// `ibv_wr_*` and `ibv_start_poll`. As a request: where the device has it, and for queue
    /// pairs whose sends gather a single buffer.
    Extended,
}
