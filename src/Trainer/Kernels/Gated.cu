// act(gate) · up, elementwise; one block a row. In sixteen bits the fast exponential and quotient are exact enough, and without them the
// arithmetic takes longer than the memory; everything between loading and storing stays in fp32.

// 0 silu, 1 relu, 2 gelu, 3 gelu by tanh: as a type, so that the choice is made once and not for every number.
template <int K> struct Kind { static const int value = K; };

template <typename F> __device__ inline void by_kind(int kind, F f)
{
    if (kind == 0) f(Kind<0>());
    else if (kind == 1) f(Kind<1>());
    else if (kind == 2) f(Kind<2>());
    else f(Kind<3>());
}

__device__ inline float sigmoid(float x) { return sizeof(T) == 2 ? __fdividef(1.f, 1.f + __expf(-x)) : 1.f / (1.f + expf(-x)); }

__device__ inline void activate(float x, float& value, float& slope, Kind<0>)
{
    float s = sigmoid(x);
    value = x * s;
    slope = s * (1.f + x * (1.f - s));
}
__device__ inline void activate(float x, float& value, float& slope, Kind<1>)
{
    value = x > 0.f || x != x ? x : 0.f;
    slope = x > 0.f ? 1.f : 0.f;
}
__device__ inline void activate(float x, float& value, float& slope, Kind<2>)
{
    float cdf = 0.5f * (1.f + erff(x * 0.70710678118654752f));
    value = x * cdf;
    slope = cdf + x * 0.39894228040143268f * expf(-0.5f * x * x);
}
__device__ inline void activate(float x, float& value, float& slope, Kind<3>)
{
    float inner = 0.79788456080286536f * (x + 0.044715f * x * x * x), t = tanhf(inner);
    value = 0.5f * x * (1.f + t);
    slope = 0.5f * (1.f + t) + 0.5f * x * (1.f - t * t) * 0.79788456080286536f * (1.f + 0.134145f * x * x);
}

template <int N, typename K> __device__ void forward_row(const T* gate, const T* up, T* y, int width, K kind)
{
    for (int i = threadIdx.x * N; i < width; i += blockDim.x * N)
    {
        Pack<T, N> g = load<N>(gate + i), u = load<N>(up + i);
        for (int j = 0; j < N; j++)
        {
            float value, slope;
            activate(g[j], value, slope, kind);
            g.set(j, value * u[j]);
        }
        store(y + i, g);
    }
}

extern "C" __global__ void forward(const T* gate, const T* up, T* y, i64 stride, int width, int kind, int packed)
{
    i64 row = blockIdx.x;
    by_kind(kind, [&](auto k) {
        if (packed)
            forward_row<16 / sizeof(T)>(gate + row * stride, up + row * stride, y + row * width, width, k);
        else
            forward_row<1>(gate + row * stride, up + row * stride, y + row * width, width, k);
    });
}

template <int N, typename K> __device__ void backward_row(T* gate, T* up, T* gradient, int width, K kind)
{
    for (int i = threadIdx.x * N; i < width; i += blockDim.x * N)
    {
        Pack<T, N> g = load<N>(gate + i), u = load<N>(up + i), d = load<N>(gradient + i);
        for (int j = 0; j < N; j++)
        {
            float value, slope, dy = d[j], factor = u[j];
            activate(g[j], value, slope, kind);
            g.set(j, dy * factor * slope);
            u.set(j, dy * value);
            d.set(j, value * factor);
        }
        store(gate + i, g);
        store(up + i, u);
        store(gradient + i, d);
    }
}

// In place: gate and up become their gradients, and the gradient of the output becomes the output itself, which the next weight's gradient needs.
extern "C" __global__ void backward(T* gate, T* up, T* gradient, i64 stride, int width, int kind, int packed)
{
    i64 row = blockIdx.x;
    by_kind(kind, [&](auto k) {
        if (packed)
            backward_row<16 / sizeof(T)>(gate + row * stride, up + row * stride, gradient + row * width, width, k);
        else
            backward_row<1>(gate + row * stride, up + row * stride, gradient + row * width, width, k);
    });
}

// The same where the low-rank parts of gate and up (and of the gradient) are still to be added: scale · left · right, by the tensor cores, in
// registers, where the numbers pass by anyway. A warp has 32 columns and goes down the rows sixteen at a time; of every sixteen a thread has
// eight neighbouring columns of two rows, because the columns are dealt to the products in that order.

__device__ inline void multiply(float* c, const u32* a, const u32* b, bf16)
{
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}
__device__ inline void multiply(float* c, const u32* a, const u32* b, fp16)
{
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}
__device__ inline void multiply(float*, const u32*, const u32*, float) { }

// left: rows × R with a stride; right: R × columns in whichever order its reader is told.
struct Low { const T* left; i64 stride; const T* right; float scale; };

// The right factor of 32 columns, R deep.
template <int R> struct Right
{
    u32 at[R / 16][4][2];

    // One entry of the factor is from[column · across + k · down].
    __device__ inline void read(const T* from, int column, i64 across, i64 down)
    {
        int group = (threadIdx.x & 31) >> 2, pair = threadIdx.x & 3;
        for (int step = 0; step < R / 16; step++)
            for (int tile = 0; tile < 4; tile++)
                for (int half = 0; half < 2; half++)
                {
                    const u16* x = (const u16*)from + (column + 8 * (group >> 1) + 2 * tile + (group & 1)) * across + (step * 16 + half * 8 + 2 * pair) * down;
                    at[step][tile][half] = x[0] | (u32)x[down] << 16;
                }
    }
};

// The left factor of sixteen rows.
template <int R> struct Left
{
    u32 at[R / 16][4];

    __device__ inline void read(Low low, i64 row, i64 rows)
    {
        int group = (threadIdx.x & 31) >> 2, pair = threadIdx.x & 3;
        for (int step = 0; step < R / 16; step++)
            for (int i = 0; i < 4; i++)
            {
                i64 r = row + group + 8 * (i & 1);
                at[step][i] = r < rows ? *(const u32*)((const u16*)low.left + r * low.stride + step * 16 + 8 * (i >> 1) + 2 * pair) : 0;
            }
    }
};

// out[half][i] is column 8 · pair + i of row group + 8 · half.
template <int R> __device__ inline void product(float out[2][8], const Left<R>& left, const Right<R>& right, float scale)
{
    float c[4][4] = {};
    for (int step = 0; step < R / 16; step++)
        for (int tile = 0; tile < 4; tile++)
            multiply(c[tile], left.at[step], right.at[step][tile], T());
    for (int tile = 0; tile < 4; tile++)
        for (int i = 0; i < 4; i++)
            out[i >> 1][2 * tile + (i & 1)] = c[tile][i] * scale;
}

template <int R, typename K> __device__ inline void forward_low(const T* gate, const T* up, T* y, Low lowGate, Low lowUp, i64 rows, int width, i64 stride, int span, K kind)
{
    int column = (blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5)) * 32, group = (threadIdx.x & 31) >> 2, pair = threadIdx.x & 3;
    if (column >= width)
        return;
    Right<R> rightGate, rightUp;
    rightGate.read(lowGate.right, column, R, 1);
    rightUp.read(lowUp.right, column, R, 1);
    column += 8 * pair;
    i64 end = min(rows, ((i64)blockIdx.y + 1) * span);
    for (i64 row = (i64)blockIdx.y * span; row < end; row += 16)
    {
        // Everything is asked for before anything is waited for.
        Pack<T, 8> g[2], u[2];
#pragma unroll
        for (int half = 0; half < 2; half++)
        {
            i64 r = min(row + group + 8 * half, end - 1);
            g[half] = load<8>(gate + r * stride + column);
            u[half] = load<8>(up + r * stride + column);
        }
        Left<R> leftGate, leftUp;
        leftGate.read(lowGate, row, rows);
        leftUp.read(lowUp, row, rows);
        float addGate[2][8], addUp[2][8];
        product<R>(addGate, leftGate, rightGate, lowGate.scale);
        product<R>(addUp, leftUp, rightUp, lowUp.scale);
#pragma unroll
        for (int half = 0; half < 2; half++)
        {
            for (int i = 0; i < 8; i++)
            {
                float value, slope;
                activate(g[half][i] + addGate[half][i], value, slope, kind);
                g[half].set(i, value * (u[half][i] + addUp[half][i]));
            }
            i64 r = row + group + 8 * half;
            if (r < end)
                store(y + r * width + column, g[half]);
        }
    }
}

template <int R, typename K> __device__ inline void backward_low(T* gate, T* up, T* gradient, Low lowGate, Low lowUp, Low lowGradient, i64 rows, int width, i64 stride, int span, K kind)
{
    int column = (blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5)) * 32, group = (threadIdx.x & 31) >> 2, pair = threadIdx.x & 3;
    if (column >= width)
        return;
    Right<R> rightGate, rightUp, rightGradient;
    rightGate.read(lowGate.right, column, R, 1);
    rightUp.read(lowUp.right, column, R, 1);
    if (lowGradient.left)
        rightGradient.read(lowGradient.right, column, 1, width);
    column += 8 * pair;
    i64 end = min(rows, ((i64)blockIdx.y + 1) * span);
    for (i64 row = (i64)blockIdx.y * span; row < end; row += 16)
    {
        Pack<T, 8> g[2], u[2], d[2];
#pragma unroll
        for (int half = 0; half < 2; half++)
        {
            i64 r = min(row + group + 8 * half, end - 1);
            g[half] = load<8>(gate + r * stride + column);
            u[half] = load<8>(up + r * stride + column);
            d[half] = load<8>(gradient + r * width + column);
        }
        Left<R> leftGate, leftUp, left;
        leftGate.read(lowGate, row, rows);
        leftUp.read(lowUp, row, rows);
        float addGate[2][8], addUp[2][8], add[2][8] = {};
        if (lowGradient.left)
        {
            left.read(lowGradient, row, rows);
            product<R>(add, left, rightGradient, lowGradient.scale);
        }
        product<R>(addGate, leftGate, rightGate, lowGate.scale);
        product<R>(addUp, leftUp, rightUp, lowUp.scale);
        // The last rows were read by two threads where there are not sixteen: all reading is done before any of them is overwritten.
        __syncwarp();
#pragma unroll
        for (int half = 0; half < 2; half++)
        {
            for (int i = 0; i < 8; i++)
            {
                float value, slope, dy = d[half][i] + add[half][i], factor = u[half][i] + addUp[half][i];
                activate(g[half][i] + addGate[half][i], value, slope, kind);
                g[half].set(i, dy * factor * slope);
                u[half].set(i, dy * value);
                d[half].set(i, value * factor);
            }
            i64 r = row + group + 8 * half;
            if (r < end)
            {
                store(gate + r * stride + column, g[half]);
                store(up + r * stride + column, u[half]);
                store(gradient + r * width + column, d[half]);
            }
        }
    }
}

#define RANK(R) \
extern "C" __global__ void __launch_bounds__(256) forward_low##R(const T* gate, const T* up, T* y, const T* gateLeft, i64 gateStride, const T* gateRight, float gateScale, \
    const T* upLeft, i64 upStride, const T* upRight, float upScale, i64 rows, int width, i64 stride, int kind, int span) \
{ \
    by_kind(kind, [&](auto k) { forward_low<R>(gate, up, y, { gateLeft, gateStride, gateRight, gateScale }, { upLeft, upStride, upRight, upScale }, rows, width, stride, span, k); }); \
} \
extern "C" __global__ void __launch_bounds__(256) backward_low##R(T* gate, T* up, T* gradient, const T* gateLeft, i64 gateStride, const T* gateRight, float gateScale, \
    const T* upLeft, i64 upStride, const T* upRight, float upScale, const T* left, i64 leftStride, const T* right, float scale, i64 rows, int width, i64 stride, int kind, int span) \
{ \
    by_kind(kind, [&](auto k) { backward_low<R>(gate, up, gradient, { gateLeft, gateStride, gateRight, gateScale }, { upLeft, upStride, upRight, upScale }, \
        { left, leftStride, right, scale }, rows, width, stride, span, k); }); \
}
RANK(16)
RANK(32)
RANK(64)
