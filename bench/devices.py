"""Devices of NVIDIA, as far as the bounds on a kernel's speed need them: from their data sheets and white papers."""

from typing import NamedTuple

KB = 1 << 10
# A multiprocessor issues this many instructions a clock cycle.
ISSUED = 4
# Of what the caches hold, the rest being lines on their way; of L2's rate, for gathers by random addresses.
USABLE_L1, USABLE_L2, GATHERED = 0.8, 0.9, 0.6
# Clock cycles until a load is answered, by where it is found.
L1_WAIT, L2_WAIT, DRAM_WAIT = 35, 270, 600
SHARED_RESERVED = KB  # of every block


class Device(NamedTuple):
    """number: of its instruction set; of a multiprocessor: warps and blocks at most, bytes of L1 and shared memory
    together and what of it may be shared, lanes that add or multiply float64 a cycle; of the device: bytes of L2,
    sectors of 32 bytes that L2 gives and bytes that DRAM gives, a second.
    """

    number: int
    multiprocessors: int
    hertz: float
    warps: int
    blocks: int
    l1_bytes: int
    shared_bytes: int
    doubles: int
    l2_bytes: int
    l2_sectors: float
    dram_bytes: float

    def residence(self, registers: int, shared: int, threads: int) -> tuple[int, int]:
        """Blocks that a multiprocessor runs at once, and the bytes of L1 that they leave."""
        warps = -(-threads // 32)
        by_registers = 65536 // (-(-registers // 8) * 8 * 32)
        blocks = min(self.blocks, self.warps // warps, by_registers // warps)
        if shared:
            blocks = min(blocks, self.shared_bytes // (shared + SHARED_RESERVED))
        carved = blocks * (shared + SHARED_RESERVED) if shared else 0
        return blocks, int(USABLE_L1 * (self.l1_bytes - carved))

    @property
    def l2_share(self) -> int:
        """Bytes of L2 for each multiprocessor."""
        return int(USABLE_L2 * self.l2_bytes / self.multiprocessors)


DEVICES = {
    "H200": Device(90, 132, 1.98e9, 64, 32, 256 * KB, 228 * KB, 64, 50 * KB * KB, 306e9, 4.8e12),
    "H100": Device(90, 132, 1.98e9, 64, 32, 256 * KB, 228 * KB, 64, 50 * KB * KB, 306e9, 3.35e12),
    "A100": Device(80, 108, 1.41e9, 64, 32, 192 * KB, 164 * KB, 32, 40 * KB * KB, 225e9, 2.04e12),
    "RTX 4090": Device(89, 128, 2.52e9, 48, 24, 128 * KB, 100 * KB, 2, 72 * KB * KB, 156e9, 1.01e12),
}
