#pragma once
// Every unary function and its derivative. The kind is the same for a whole launch, so its branch costs
// nothing.
#include "cuda/common.cuh"

namespace mf::cuda {

// sigmoid(x) and 1 - sigmoid(x), neither by a cancelling difference.
template <typename A>
struct Sigmoid {
  A value, rest;
};
template <typename A>
MF_DEVICE Sigmoid<A> sigmoid(A x) {
  const A e = std::exp(-std::abs(x)), large = A(1) / (A(1) + e), small = e * large;
  return x < A(0) ? Sigmoid<A>{small, large} : Sigmoid<A>{large, small};
}

// gelu_new(x) = x sigmoid(2u) with u = sqrt(2 / pi) (x + 0.044715 x^3).
template <typename A>
MF_DEVICE Sigmoid<A> geluNewSigmoid(A x) {
  return sigmoid(A(1.5957691216057308) * x * (A(1) + A(0.044715) * x * x));
}

template <typename A>
MF_DEVICE A unaryValue(UnaryKind kind, A x) {
  switch (kind) {
    case UnaryKind::Gelu:
      return A(0.5) * x * std::erfc(-x * A(0.70710678118654752440));
    case UnaryKind::GeluNew:
      return x * geluNewSigmoid(x).value;
    case UnaryKind::Silu:
      return x * sigmoid(x).value;
    case UnaryKind::Relu:
      return x < A(0) ? A(0) : x;
    case UnaryKind::Sigmoid:
      return sigmoid(x).value;
    case UnaryKind::Tanh:
      return std::tanh(x);
    case UnaryKind::Exp:
      return std::exp(x);
    case UnaryKind::Log:
      return std::log(x);
    case UnaryKind::Sqrt:
      return std::sqrt(x);
    case UnaryKind::Square:
      return x * x;
    case UnaryKind::Neg:
      return -x;
    case UnaryKind::Abs:
      return std::abs(x);
    case UnaryKind::Softplus:
      return (x > A(0) ? x : A(0)) + std::log1p(std::exp(-std::abs(x)));
  }
  return x;
}

template <typename A>
MF_DEVICE A unaryGrad(UnaryKind kind, A x) {
  switch (kind) {
    case UnaryKind::Gelu:
      return A(0.5) * std::erfc(-x * A(0.70710678118654752440)) +
             x * A(0.39894228040143267794) * std::exp(A(-0.5) * x * x);
    case UnaryKind::GeluNew: {
      const Sigmoid<A> s = geluNewSigmoid(x);
      // Beyond |x| = 12 the product of both has vanished, but the slope could overflow.
      const A square = minimum(x * x, A(144));
      return s.value + x * s.value * s.rest * A(1.5957691216057308) * (A(1) + A(3 * 0.044715) * square);
    }
    case UnaryKind::Silu: {
      const Sigmoid<A> s = sigmoid(x);
      return s.value + x * s.value * s.rest;
    }
    case UnaryKind::Relu:
      return x <= A(0) ? A(0) : x != x ? x : A(1);
    case UnaryKind::Sigmoid: {
      const Sigmoid<A> s = sigmoid(x);
      return s.value * s.rest;
    }
    case UnaryKind::Tanh: {
      const Sigmoid<A> s = sigmoid(A(2) * x);
      return A(4) * s.value * s.rest;
    }
    case UnaryKind::Exp:
      return std::exp(x);
    case UnaryKind::Log:
      return A(1) / x;
    case UnaryKind::Sqrt:
      return A(0.5) / std::sqrt(x);
    case UnaryKind::Square:
      return A(2) * x;
    case UnaryKind::Neg:
      return A(-1);
    case UnaryKind::Abs:
      return x > A(0) ? A(1) : x < A(0) ? A(-1) : x;
    case UnaryKind::Softplus:
      return sigmoid(x).value;
  }
  return x;
}

}  // namespace mf::cuda
