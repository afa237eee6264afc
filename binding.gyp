# The CPU addon for node-gyp, from the folders that CMakeLists.txt builds, with the same options. Objects of a wider
# instruction set come later in the link (see CMakeLists.txt).
{
  "variables": {
    "core_sources": ["<!@(node scripts/sources.mjs native/core native/ops)"],
    "cpu_sources": ["<!@(node scripts/sources.mjs --recursive --except native/cpu/select.cc native/cpu)"],
    "napi_sources": ["<!@(node scripts/sources.mjs native/napi)"]
  },
  "target_defaults": {
    "include_dirs": ["native"],
    "cflags_cc": ["-std=c++20", "-O3", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math"],
    "cflags_cc!": ["-std=gnu++17", "-std=gnu++20", "-fno-rtti", "-fno-exceptions"],
    "cflags!": ["-fno-exceptions"],
    "xcode_settings": {
      "CLANG_CXX_LANGUAGE_STANDARD": "c++20",
      "GCC_ENABLE_CPP_EXCEPTIONS": "YES",
      "GCC_ENABLE_CPP_RTTI": "YES"
    }
  },
  "targets": [
    {
      "target_name": "cpu_generic",
      "type": "static_library",
      "sources": ["<@(cpu_sources)"],
      "defines": ["MF_ISA=generic"],
      "cflags_cc": ["-ffp-contract=fast"]
    },
    {
      "target_name": "moduleformer",
      "sources": ["<@(core_sources)", "native/cpu/select.cc", "<@(napi_sources)"],
      "include_dirs": ["<!(node -p \"require('node-addon-api').include_dir\")"],
      "defines": ["NAPI_VERSION=8", "NODE_ADDON_API_CPP_EXCEPTIONS"],
      "dependencies": ["cpu_generic"],
      "conditions": [
        ["target_arch=='x64'", {
          "dependencies": ["cpu_avx2", "cpu_avx512"],
          "defines": ["MF_ISA_ENTRIES=MF_ISA_ENTRY(generic) MF_ISA_ENTRY(avx2) MF_ISA_ENTRY(avx512)"]
        }, {
          "defines": ["MF_ISA_ENTRIES=MF_ISA_ENTRY(generic)"]
        }],
        ["OS=='linux'", {"ldflags": ["-Wl,-z,nodelete"]}]
      ]
    }
  ],
  "conditions": [
    ["target_arch=='x64'", {
      "targets": [
        {
          "target_name": "cpu_avx2",
          "type": "static_library",
          "sources": ["<@(cpu_sources)"],
          "defines": ["MF_ISA=avx2"],
          "cflags_cc": ["-ffp-contract=fast", "-march=x86-64-v3"],
          "xcode_settings": {"OTHER_CPLUSPLUSFLAGS": ["-march=x86-64-v3"]}
        },
        {
          "target_name": "cpu_avx512",
          "type": "static_library",
          "sources": ["<@(cpu_sources)"],
          "defines": ["MF_ISA=avx512"],
          "cflags_cc": ["-ffp-contract=fast", "-march=x86-64-v4", "-mprefer-vector-width=512"],
          "xcode_settings": {"OTHER_CPLUSPLUSFLAGS": ["-march=x86-64-v4", "-mprefer-vector-width=512"]}
        }
      ]
    }]
  ]
}
