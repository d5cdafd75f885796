// act(gate) · up, elementwise; one block a row. kind: 0 silu, 1 relu, 2 gelu, 3 gelu by tanh.

__device__ inline void activate(float x, int kind, float& value, float& slope)
{
    if (kind == 0)
    {
        float s = 1.f / (1.f + expf(-x));
        value = x * s;
        slope = s * (1.f + x * (1.f - s));
    }
    else if (kind == 1)
    {
        value = x > 0.f || x != x ? x : 0.f;
        slope = x > 0.f ? 1.f : 0.f;
    }
    else if (kind == 2)
    {
        float cdf = 0.5f * (1.f + erff(x * 0.70710678118654752f));
        value = x * cdf;
        slope = cdf + x * 0.39894228040143268f * expf(-0.5f * x * x);
    }
    else
    {
        float inner = 0.79788456080286536f * (x + 0.044715f * x * x * x), t = tanhf(inner);
        value = 0.5f * x * (1.f + t);
        slope = 0.5f * (1.f + t) + 0.5f * x * (1.f - t * t) * 0.79788456080286536f * (1.f + 0.134145f * x * x);
    }
}

template <int N> __device__ void forward_row(const T* gate, const T* up, T* y, int width, int kind)
{
    for (int i = threadIdx.x * N; i < width; i += blockDim.x * N)
    {
        Pack<T, N> g = load<N>(gate + i), u = load<N>(up + i);
        for (int j = 0; j < N; j++)
        {
            float value, slope;
            activate(g[j], kind, value, slope);
            g.set(j, rounded<T>(value) * u[j]);
        }
        store(y + i, g);
    }
}

extern "C" __global__ void forward(const T* gate, const T* up, T* y, i64 stride, int width, int kind, int packed)
{
    i64 row = blockIdx.x;
    if (packed)
        forward_row<16 / sizeof(T)>(gate + row * stride, up + row * stride, y + row * width, width, kind);
    else
        forward_row<1>(gate + row * stride, up + row * stride, y + row * width, width, kind);
}

template <int N> __device__ void backward_row(T* gate, T* up, T* gradient, int width, int kind)
{
    for (int i = threadIdx.x * N; i < width; i += blockDim.x * N)
    {
        Pack<T, N> g = load<N>(gate + i), u = load<N>(up + i), d = load<N>(gradient + i), dg, du;
        for (int j = 0; j < N; j++)
        {
            float value, slope, dy = d[j];
            activate(g[j], kind, value, slope);
            value = rounded<T>(value);
            dg.set(j, dy * u[j] * slope);
            du.set(j, dy * value);
            d.set(j, value * u[j]);
        }
        store(gate + i, dg);
        store(up + i, du);
        store(gradient + i, d);
    }
}

// In place: gate and up become their gradients, and the gradient of the output becomes the output itself, which the next weight's gradient needs.
extern "C" __global__ void backward(T* gate, T* up, T* gradient, i64 stride, int width, int kind, int packed)
{
    i64 row = blockIdx.x;
    if (packed)
        backward_row<16 / sizeof(T)>(gate + row * stride, up + row * stride, gradient + row * width, width, kind);
    else
        backward_row<1>(gate + row * stride, up + row * stride, gradient + row * width, width, kind);
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

// left · right of sixteen rows: out[half][i] is column 8 · pair + i of row group + 8 · half.
template <int R> __device__ inline void product(float out[2][8], const T* left, const Right<R>& right, i64 row, i64 rows)
{
    int group = (threadIdx.x & 31) >> 2, pair = threadIdx.x & 3;
    float c[4][4] = {};
    for (int step = 0; step < R / 16; step++)
    {
        u32 a[4];
        for (int i = 0; i < 4; i++)
        {
            i64 r = row + group + 8 * (i & 1);
            a[i] = r < rows ? *(const u32*)((const u16*)left + r * R + step * 16 + 8 * (i >> 1) + 2 * pair) : 0;
        }
        for (int tile = 0; tile < 4; tile++)
            multiply(c[tile], a, right.at[step][tile], T());
    }
    for (int tile = 0; tile < 4; tile++)
        for (int i = 0; i < 4; i++)
            out[i >> 1][2 * tile + (i & 1)] = c[tile][i];
}

struct Low { const T* left; const T* right; float scale; };

template <int R> __device__ inline void forward_low(const T* gate, const T* up, T* y, Low lowGate, Low lowUp, i64 rows, int width, i64 stride, int kind, int span)
{
    int column = (blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5)) * 32, group = (threadIdx.x & 31) >> 2, pair = threadIdx.x & 3;
    if (column >= width)
        return;
    Right<R> rightGate, rightUp;
    rightGate.read(lowGate.right, column, R, 1);
    rightUp.read(lowUp.right, column, R, 1);
    i64 end = min(rows, ((i64)blockIdx.y + 1) * span);
    for (i64 row = (i64)blockIdx.y * span; row < end; row += 16)
    {
        float addGate[2][8], addUp[2][8];
        product<R>(addGate, lowGate.left, rightGate, row, rows);
        product<R>(addUp, lowUp.left, rightUp, row, rows);
        for (int half = 0; half < 2; half++)
        {
            i64 r = row + group + 8 * half;
            if (r >= end)
                continue;
            Pack<T, 8> g = load<8>(gate + r * stride + column + 8 * pair), u = load<8>(up + r * stride + column + 8 * pair);
            for (int i = 0; i < 8; i++)
            {
                float value, slope;
                activate(rounded<T>(g[i] + lowGate.scale * addGate[half][i]), kind, value, slope);
                g.set(i, rounded<T>(value) * rounded<T>(u[i] + lowUp.scale * addUp[half][i]));
            }
            store(y + r * width + column + 8 * pair, g);
        }
    }
}

template <int R> __device__ inline void backward_low(T* gate, T* up, T* gradient, Low lowGate, Low lowUp, Low lowGradient, i64 rows, int width, i64 stride, int kind, int span)
{
    int column = (blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5)) * 32, group = (threadIdx.x & 31) >> 2, pair = threadIdx.x & 3;
    if (column >= width)
        return;
    Right<R> rightGate, rightUp, rightGradient;
    rightGate.read(lowGate.right, column, R, 1);
    rightUp.read(lowUp.right, column, R, 1);
    if (lowGradient.left)
        rightGradient.read(lowGradient.right, column, 1, width);
    i64 end = min(rows, ((i64)blockIdx.y + 1) * span);
    for (i64 row = (i64)blockIdx.y * span; row < end; row += 16)
    {
        float addGate[2][8], addUp[2][8], addGradient[2][8] = {};
        product<R>(addGate, lowGate.left, rightGate, row, rows);
        product<R>(addUp, lowUp.left, rightUp, row, rows);
        if (lowGradient.left)
            product<R>(addGradient, lowGradient.left, rightGradient, row, rows);
        for (int half = 0; half < 2; half++)
        {
            i64 r = row + group + 8 * half;
            if (r >= end)
                continue;
            T* atGate = gate + r * stride + column + 8 * pair;
            T* atUp = up + r * stride + column + 8 * pair;
            T* atGradient = gradient + r * width + column + 8 * pair;
            Pack<T, 8> g = load<8>(atGate), u = load<8>(atUp), d = load<8>(atGradient);
            for (int i = 0; i < 8; i++)
            {
                float value, slope, dy = rounded<T>(d[i] + lowGradient.scale * addGradient[half][i]), factor = rounded<T>(u[i] + lowUp.scale * addUp[half][i]);
                activate(rounded<T>(g[i] + lowGate.scale * addGate[half][i]), kind, value, slope);
                value = rounded<T>(value);
                g.set(i, dy * factor * slope);
                u.set(i, dy * value);
                d.set(i, value * factor);
            }
            store(atGate, g);
            store(atUp, u);
            store(atGradient, d);
        }
    }
}

#define RANK(R) \
extern "C" __global__ void __launch_bounds__(256) forward_low##R(const T* gate, const T* up, T* y, const T* gateLeft, const T* gateRight, float gateScale, \
    const T* upLeft, const T* upRight, float upScale, i64 rows, int width, i64 stride, int kind, int span) \
{ \
    forward_low<R>(gate, up, y, { gateLeft, gateRight, gateScale }, { upLeft, upRight, upScale }, rows, width, stride, kind, span); \
} \
extern "C" __global__ void __launch_bounds__(256) backward_low##R(T* gate, T* up, T* gradient, const T* gateLeft, const T* gateRight, float gateScale, \
    const T* upLeft, const T* upRight, float upScale, const T* left, const T* right, float scale, i64 rows, int width, i64 stride, int kind, int span) \
{ \
    backward_low<R>(gate, up, gradient, { gateLeft, gateRight, gateScale }, { upLeft, upRight, upScale }, { left, right, scale }, rows, width, stride, kind, span); \
}
RANK(16)
RANK(32)
RANK(64)
