// OpenBLAS called once per expert on gathered rows, as one would without a grouped GEMM, in f32.
#include <cblas.h>

#include <string>

#include "per_expert.h"

extern "C" char* openblas_get_corename(void);
extern "C" char* openblas_get_config(void);

int main(int argc, char** argv) {
  peers::Layer<float> l(argc, argv);
  const std::string library =
      std::string(openblas_get_config()) + " (kernel " + openblas_get_corename() + ")";
  l.measure(
      library.c_str(),
      [&](size_t e, size_t begin, int n) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, l.F, l.D, 1, &l.gathered[begin * l.D], l.D,
                    &l.w[l.weight(e)], l.F, 0, &l.out[begin * l.F], l.F);
      },
      [&](size_t e, size_t begin, int n) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, l.D, l.F, 1, &l.dy[begin * l.F], l.F,
                    &l.w[l.weight(e)], l.F, 0, &l.dx[begin * l.D], l.D);
      },
      [&](size_t e, size_t begin, int n) {
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, l.D, l.F, n, 1, &l.gathered[begin * l.D], l.D,
                    &l.dy[begin * l.F], l.F, 0, &l.dw[l.weight(e)], l.F);
      });
}
