// oneDNN called once per expert on gathered rows, as one would without a grouped GEMM: a matmul primitive for
// each expert and product, made beforehand, on row-major weights. Built for bf16 with -DPEER_BF16, else f32.
#include <oneapi/dnnl/dnnl.hpp>
#include <string>

#include "per_expert.h"

namespace {

#if defined(PEER_BF16)
using Element = uint16_t;
constexpr auto kType = dnnl::memory::data_type::bf16;
#else
using Element = float;
constexpr auto kType = dnnl::memory::data_type::f32;
#endif

struct Matrix {
  const Element* data;
  int64_t rows, columns, rowStride, columnStride;

  dnnl::memory::desc desc() const { return {{rows, columns}, kType, {rowStride, columnStride}}; }
  dnnl::memory memory(const dnnl::engine& engine) const {
    return {desc(), engine, const_cast<Element*>(data)};
  }
  Matrix transposed() const { return {data, columns, rows, columnStride, rowStride}; }
};
Matrix rowMajor(const Element* data, int64_t rows, int64_t columns) {
  return {data, rows, columns, columns, 1};
}

// out = a b, and the kernel that the library chose for it.
class Product {
 public:
  Product(const dnnl::engine& engine, const Matrix& a, const Matrix& b, const Matrix& out)
      : Product(engine, dnnl::matmul::primitive_desc({a.desc(), b.desc(), out.desc()}, engine), a, b, out) {}

  void run(dnnl::stream& stream) { matmul_.execute(stream, arguments_); }
  const std::string& kernel() const { return kernel_; }

 private:
  Product(const dnnl::engine& engine, const dnnl::matmul::primitive_desc& chosen, const Matrix& a,
          const Matrix& b, const Matrix& out)
      : matmul_(chosen),
        kernel_(chosen.impl_info_str()),
        arguments_{{DNNL_ARG_SRC, a.memory(engine)},
                   {DNNL_ARG_WEIGHTS, b.memory(engine)},
                   {DNNL_ARG_DST, out.memory(engine)}} {}

  dnnl::matmul matmul_;
  std::string kernel_;
  std::unordered_map<int, dnnl::memory> arguments_;
};

}  // namespace

int main(int argc, char** argv) {
  peers::Layer<Element> l(argc, argv);
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  std::vector<Product> forward, inputGrad, weightGrad;  // by expert with rows
  std::vector<size_t> place(l.counts.size());
  l.forEachExpert([&](size_t e, size_t begin, int n) {
    place[e] = forward.size();
    const Matrix x = rowMajor(&l.gathered[begin * l.D], n, l.D), w = rowMajor(&l.w[l.weight(e)], l.D, l.F),
                 dy = rowMajor(&l.dy[begin * l.F], n, l.F);
    forward.emplace_back(engine, x, w, rowMajor(&l.out[begin * l.F], n, l.F));
    inputGrad.emplace_back(engine, dy, w.transposed(), rowMajor(&l.dx[begin * l.D], n, l.D));
    weightGrad.emplace_back(engine, x.transposed(), dy, rowMajor(&l.dw[l.weight(e)], l.D, l.F));
  });
  const dnnl_version_t* version = dnnl::version();
  const std::string library = "oneDNN " + std::to_string(version->major) + "." +
                              std::to_string(version->minor) + "." + std::to_string(version->patch) +
                              " (kernels " + forward[0].kernel() + ", " + inputGrad[0].kernel() + ", " +
                              weightGrad[0].kernel() + ")";
  const auto runs = [&](std::vector<Product>& products) {
    return [&](size_t e, size_t, int) { products[place[e]].run(stream); };
  };
  l.measure(library.c_str(), runs(forward), runs(inputGrad), runs(weightGrad));
}
