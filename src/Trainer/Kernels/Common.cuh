// Before every kernel file; T, the type of the activations, is defined between the two. Nothing is included, so that the compiler needs no headers.
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

struct bf16 { u16 bits; };
struct fp16 { u16 bits; };

__device__ inline float wide(float x) { return x; }
__device__ inline float wide(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
__device__ inline float wide(fp16 x) { float y; asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits)); return y; }

template <typename N> __device__ inline N narrow(float x);
template <> __device__ inline float narrow<float>(float x) { return x; }
template <> __device__ inline fp16 narrow<fp16>(float x) { fp16 y; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); return y; }
template <> __device__ inline bf16 narrow<bf16>(float x)
{
    bf16 y;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
#else
    u32 bits = __float_as_uint(x);
    y.bits = x != x ? 0x7fff : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;   // round to nearest, ties to even
#endif
    return y;
}

// x as it is after being stored in N.
template <typename N> __device__ inline float rounded(float x) { return wide(narrow<N>(x)); }

// N numbers that are loaded and stored at once.
template <typename E, int N> struct alignas(sizeof(E) * N) Pack
{
    E at[N];
    __device__ inline float operator[](int i) const { return wide(at[i]); }
    __device__ inline void set(int i, float x) { at[i] = narrow<E>(x); }
};
template <int N, typename E> __device__ inline Pack<E, N> load(const E* from) { return *reinterpret_cast<const Pack<E, N>*>(from); }
template <int N, typename E> __device__ inline void store(E* to, const Pack<E, N>& value) { *reinterpret_cast<Pack<E, N>*>(to) = value; }

__device__ inline float warp_sum(float x)
{
    for (int step = 16; step > 0; step >>= 1)
        x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

// Sum over a block of one row of warps, the same in every thread and in every run.
__device__ inline float block_sum(float x)
{
    __shared__ float parts[32];
    x = warp_sum(x);
    if (blockDim.x == 32)
        return x;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    __syncthreads();
    if (lane == 0)
        parts[warp] = x;
    __syncthreads();
    return warp_sum(lane < (blockDim.x >> 5) ? parts[lane] : 0.f);
}
