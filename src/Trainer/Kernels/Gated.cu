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
