//! A network in Rust, with the standard library alone: classify INPUT.f32 THREADS
//!
//! INPUT is the network's input as raw float32 (tvmmobile run --save-input writes one). Prints the class with the highest score.
use std::alloc::{alloc_zeroed, dealloc, Layout};
use std::ffi::CStr;
use std::os::raw::{c_char, c_int, c_void};
use std::{env, error::Error, fs, slice};

/// The library's header, as far as it is used here.
mod net {
    use super::*;

    pub const INTERFACE: u32 = 1; // TVMMOBILE_INTERFACE in the header that this was written after

    #[repr(C)]
    pub struct Tensor {
        pub names: [*const c_char; 3], // its name, type and layout
        pub shape: *const i64,
        pub rank: u32,
        pub scale_count: u32,
        pub bytes: usize,
        pub scales: *const f32,
        pub zero_points: *const i32,
        pub axis: i32,
    }

    #[repr(C)]
    pub struct Description {
        pub interface: u32,
        pub threads: u32,
        pub names: [*const c_char; 3], // of the network, the compiler's version and the core
        pub inputs: *const Tensor,
        pub outputs: *const Tensor,
        pub input_count: u32,
        pub output_count: u32,
        pub workspace_bytes: usize,
        pub weight_bytes: usize,
        pub alignment: usize,
    }

    #[repr(C)]
    #[derive(Default)]
    pub struct Options {
        pub threads: u32,
        pub spins: u32,
        pub flags: u32,
        pub reserved: u32,
        pub cpus: u64,
        pub pointers: [usize; 4], // parallel, pool, create, join
    }

    pub type Instance = [u64; 128];

    extern "C" {
        #[link_name = "mobilenet_v1_0_25_128_describe"]
        pub fn describe() -> *const Description;
        #[link_name = "mobilenet_v1_0_25_128_init"]
        pub fn init(interface: u32, instance: *mut Instance, options: *const Options) -> c_int;
        #[link_name = "mobilenet_v1_0_25_128_run"]
        pub fn run(
            instance: *mut Instance,
            inputs: *const *const c_void,
            outputs: *const *mut c_void,
            workspace: *mut c_void,
            bytes: usize,
            threads: u32,
        ) -> c_int;
        #[link_name = "mobilenet_v1_0_25_128_free"]
        pub fn free(instance: *mut Instance) -> c_int;
        #[link_name = "mobilenet_v1_0_25_128_message"]
        pub fn message(code: c_int) -> *const c_char;
    }
}

fn check(code: c_int) -> Result<(), Box<dyn Error>> {
    if code == 0 {
        return Ok(());
    }
    let message = unsafe { CStr::from_ptr(net::message(code)) };
    Err(message.to_string_lossy().into())
}

/// Zeros that begin at a multiple of `alignment`.
struct Buffer {
    start: *mut u8,
    layout: Layout,
}

impl Buffer {
    fn new(bytes: usize, alignment: usize) -> Result<Buffer, Box<dyn Error>> {
        let layout = Layout::from_size_align(bytes.max(1), alignment)?;
        let start = unsafe { alloc_zeroed(layout) };
        if start.is_null() {
            return Err("out of memory".into());
        }
        Ok(Buffer { start, layout })
    }

    fn bytes(&mut self) -> &mut [u8] {
        unsafe { slice::from_raw_parts_mut(self.start, self.layout.size()) }
    }

    fn floats(&self) -> &[f32] {
        unsafe { slice::from_raw_parts(self.start.cast(), self.layout.size() / 4) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        unsafe { dealloc(self.start, self.layout) }
    }
}

/// A network with one input and one output of float32. The instance is in a box, because it must not move.
struct Network {
    instance: Box<net::Instance>,
    input: Buffer,
    output: Buffer,
    workspace: Buffer,
}

impl Network {
    fn new(threads: u32) -> Result<Network, Box<dyn Error>> {
        let (it, input, output) = unsafe {
            let it = &*net::describe();
            (it, &*it.inputs, &*it.outputs)
        };
        let [input, output, workspace] = [input.bytes, output.bytes, it.workspace_bytes]
            .map(|bytes| Buffer::new(bytes, it.alignment));
        let (input, output, workspace) = (input?, output?, workspace?);
        let mut instance = Box::new([0; 128]);
        let options = net::Options {
            threads,
            ..Default::default()
        };
        check(unsafe { net::init(net::INTERFACE, &mut *instance, &options) })?;
        Ok(Network {
            instance,
            input,
            output,
            workspace,
        })
    }

    fn run(&mut self) -> Result<&[f32], Box<dyn Error>> {
        let (inputs, outputs) = (
            [self.input.start as *const c_void],
            [self.output.start as *mut c_void],
        );
        let (workspace, bytes) = (self.workspace.start.cast(), self.workspace.layout.size());
        check(unsafe {
            net::run(
                &mut *self.instance,
                inputs.as_ptr(),
                outputs.as_ptr(),
                workspace,
                bytes,
                0,
            )
        })?;
        Ok(self.output.floats())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        unsafe { net::free(&mut *self.instance) };
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = env::args().collect();
    if words.len() != 3 {
        return Err("usage: classify INPUT.f32 THREADS".into());
    }
    let mut network = Network::new(words[2].parse()?)?;
    let file = fs::read(&words[1])?;
    let input = network.input.bytes();
    if file.len() != input.len() {
        return Err(format!("{} has {} bytes, not {}", words[1], file.len(), input.len()).into());
    }
    input.copy_from_slice(&file);
    let scores = network.run()?;
    let best = (0..scores.len())
        .max_by(|&a, &b| scores[a].total_cmp(&scores[b]))
        .unwrap_or(0);
    println!("class {}: {}", best, scores[best]);
    Ok(())
}
