//! An array map as memory: elements at a fixed stride, seen through atomics.
//!
//! The XDP program on other CPUs reads and writes the same memory at any time, so no plain reference to an element ever
//! exists: whole elements are copied word by word, single fields are reached as atomics by their offset. All raw pointers of
//! the engine are in this file and in [`super::memory`].
//!
//! The trap: a copy of a whole element is not one atomic act. It is for elements that nobody else can be looking at, and for
//! counters, where a value of a moment ago is as good. What must change together is in one aligned 64-bit word, written once.

use aya::Pod;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Memory that lives until its last user is gone.
#[derive(Debug)]
enum Region {
    /// A mapping of a map.
    Map { start: NonNull<u8>, len: usize },
    /// Memory of this process, for tests.
    Heap { start: NonNull<u8>, layout: Layout },
}

// SAFETY: plain memory without an owner thread; all access is by atomics.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    fn start(&self) -> NonNull<u8> {
        match self {
            Self::Map { start, .. } | Self::Heap { start, .. } => *start,
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        match *self {
            Self::Map { start, len } => {
                // SAFETY: mapped by `Mapped::map` with this length, and the last user is gone.
                if let Err(error) = unsafe { rustix::mm::munmap(start.as_ptr().cast(), len) } {
                    tracing::warn!(%error, "a map could not be unmapped");
                }
            }
            // SAFETY: allocated by `Mapped::heap` with this layout.
            Self::Heap { start, layout } => unsafe { dealloc(start.as_ptr(), layout) },
        }
    }
}

/// An array of `T`. Clones share the memory.
#[derive(Debug)]
pub(super) struct Mapped<T> {
    region: Arc<Region>,
    len: u32,
    _elements: PhantomData<fn() -> T>,
}

impl<T> Clone for Mapped<T> {
    fn clone(&self) -> Self {
        Self { region: self.region.clone(), len: self.len, _elements: PhantomData }
    }
}

impl<T: Pod> Mapped<T> {
    /// Bytes from one element to the next: array maps round the size up to 8.
    pub(super) const STRIDE: usize = size_of::<T>().next_multiple_of(8);

    /// Maps an array map of `len` elements, made with `BPF_F_MMAPABLE`.
    ///
    /// # Errors
    /// Those of `mmap(2)`.
    pub(super) fn map(fd: impl AsFd, len: u32) -> io::Result<Self> {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let bytes = Self::STRIDE * len as usize;
        // SAFETY: a new mapping at an address of the kernel's choice. The kernel keeps the map alive while it is mapped.
        let start = unsafe {
            mmap(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, fd, 0)
                .map_err(io::Error::from)?
        };
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { region: Arc::new(Region::Map { start, len: bytes }), len, _elements: PhantomData })
    }

    /// Zeroed memory of this process.
    ///
    /// # Panics
    /// If the memory cannot be had.
    #[must_use]
    pub(super) fn heap(len: u32) -> Self {
        // At least one element, aligned as the start of a map is for every layout.
        let bytes = Self::STRIDE * len.max(1) as usize;
        let layout = Layout::from_size_align(bytes, 64).expect("size is bounded by u32 elements");
        // SAFETY: the layout is not of size 0.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { region: Arc::new(Region::Heap { start, layout }), len, _elements: PhantomData }
    }

    /// Elements.
    #[must_use]
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// An element's address; `None` beyond the end. Valid while `self` or a clone of it lives.
    #[must_use]
    pub(super) fn pointer(&self, index: u32) -> Option<*mut T> {
        if index >= self.len {
            return None;
        }
        // SAFETY: within the memory.
        Some(unsafe { self.region.start().as_ptr().add(index as usize * Self::STRIDE) }.cast())
    }

    /// Address of a field of an existing element.
    ///
    /// # Panics
    /// If element or field do not exist: both are the caller's own bookkeeping, never an input's.
    fn field(&self, index: u32, offset: usize, size: usize) -> *mut u8 {
        assert!(offset + size <= Self::STRIDE && offset.is_multiple_of(size), "no field of {size} bytes at {offset}");
        let Some(element) = self.pointer(index) else { panic!("element {index} of {}", self.len) };
        // SAFETY: within the element.
        unsafe { element.cast::<u8>().add(offset) }
    }

    /// A 64-bit field as an atomic.
    #[must_use]
    pub(super) fn u64(&self, index: u32, offset: usize) -> &AtomicU64 {
        // SAFETY: within the memory, aligned (elements are at multiples of 8), and only ever accessed by atomics.
        unsafe { AtomicU64::from_ptr(self.field(index, offset, 8).cast()) }
    }

    /// A 32-bit field as an atomic.
    #[must_use]
    pub(super) fn u32(&self, index: u32, offset: usize) -> &AtomicU32 {
        // SAFETY: as for `u64`.
        unsafe { AtomicU32::from_ptr(self.field(index, offset, 4).cast()) }
    }

    /// A byte as an atomic.
    #[must_use]
    pub(super) fn u8(&self, index: u32, offset: usize) -> &AtomicU8 {
        // SAFETY: as for `u64`.
        unsafe { AtomicU8::from_ptr(self.field(index, offset, 1)) }
    }

    /// A copy of an element, taken word by word; `None` beyond the end.
    #[must_use]
    pub(super) fn read(&self, index: u32) -> Option<T> {
        self.pointer(index)?;
        let mut value = std::mem::MaybeUninit::<T>::zeroed();
        let bytes = value.as_mut_ptr().cast::<u8>();
        let whole = size_of::<T>() / 8 * 8;
        for at in (0..whole).step_by(8) {
            let word = self.u64(index, at).load(Ordering::Relaxed);
            // SAFETY: within `value`.
            unsafe { bytes.add(at).cast::<u64>().write_unaligned(word) };
        }
        for at in whole..size_of::<T>() {
            let byte = self.u8(index, at).load(Ordering::Relaxed);
            // SAFETY: within `value`.
            unsafe { bytes.add(at).write(byte) };
        }
        // SAFETY: every byte is written, and `Pod` is valid for every pattern.
        Some(unsafe { value.assume_init() })
    }

    /// Writes an element that nobody else looks at yet, word by word.
    ///
    /// # Panics
    /// If there is no such element.
    pub(super) fn write(&self, index: u32, value: &T) {
        let bytes = std::ptr::from_ref(value).cast::<u8>();
        let whole = size_of::<T>() / 8 * 8;
        for at in (0..whole).step_by(8) {
            // SAFETY: within `value`, which has no padding.
            let word = unsafe { bytes.add(at).cast::<u64>().read_unaligned() };
            self.u64(index, at).store(word, Ordering::Release);
        }
        for at in whole..size_of::<T>() {
            // SAFETY: as above.
            self.u8(index, at).store(unsafe { bytes.add(at).read() }, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_and_fields_meet_in_the_same_memory() {
        let m = Mapped::<[u32; 3]>::heap(4);
        assert_eq!(Mapped::<[u32; 3]>::STRIDE, 16);
        m.write(2, &[1, 2, 3]);
        assert_eq!(m.read(2), Some([1, 2, 3]));
        assert_eq!(m.u32(2, 8).load(Ordering::Relaxed), 3);
        let other = m.clone();
        other.u32(2, 4).store(9, Ordering::Relaxed);
        assert_eq!(m.read(2), Some([1, 9, 3]));
        assert_eq!(m.read(1), Some([0; 3]), "neighbours stay");
        assert_eq!(m.read(3), Some([0; 3]));
        drop(m);
        assert_eq!(other.read(2), Some([1, 9, 3]), "the last user keeps the memory");
        assert_eq!(other.read(4), None);
    }
}
