//! By which calls a device is driven.

/// Which of the two sets of calls of a device's plug-in post sends and poll completions. Both do
/// the same; what they cost depends on the plug-in.
///
/// [`Classic`](Self::Classic) is the default. Counted with callgrind over rxe and rdma-core 44, an
/// inline send of 64 bytes costs CHAINCLASSIC instructions in a chain, the plug-in's included, by
/// the classic calls and CHAINEXTENDED by the extended ones, and a completion POLLCLASSIC and
/// POLLEXTENDED (`examples/cost.rs`); and until rdma-core 64 rxe's extended calls reckon the
/// lengths of lists of segments wrong, and until 61 they release a completion queue's lock twice.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Interface {
    /// `ibv_post_send` and `ibv_poll_cq`, which every device has.
    #[default]
    Classic,
    /// `ibv_wr_*` and `ibv_start_poll`. As a wish, it means: where the device has it, and for
    /// queue pairs whose sends gather a single buffer.
    Extended,
}
