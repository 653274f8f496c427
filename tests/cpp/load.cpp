// Loads each engine named on the command line, and prints what came of it: "<size> <sha256>", or the error.
#include <sys/syscall.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include <scons_tensorrt/verified_engine.hpp>

// Linked with --wrap=read: between two reads of an engine, what GROW names gets one more byte, and what
// EXCHANGE names takes the engine's place.
extern "C" ssize_t __wrap_read(int fd, void* to, size_t count) {
  static int calls = 0;
  const ssize_t done = ::syscall(SYS_read, fd, to, count);
  const char* grow = std::getenv("GROW");
  const char* from = std::getenv("EXCHANGE");
  if (++calls == 3 && grow != nullptr) std::ofstream(grow, std::ios::app) << '+';  // 1, 2: the sidecar
  if (calls == 3 && from != nullptr) std::rename(from, std::getenv("ENGINE"));
  return done;
}

static std::optional<std::string> variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::optional<std::string>() : std::string(value);
}

int main(int count, char** paths) {
  scons_tensorrt::VerifyOptions options;
  options.sums = variable("SUMS");
  options.sha256 = variable("SHA256");
  options.max_bytes = std::strtoull(variable("MAX_BYTES").value_or("0").c_str(), nullptr, 10);
  for (int i = 1; i < count; ++i) {
    try {
      const auto engine = scons_tensorrt::load_verified(paths[i], options);
      const auto* bytes = static_cast<const unsigned char*>(engine.data());
      const auto digest = scons_tensorrt::detail::sha256_of(bytes, engine.size());
      std::printf("%zu %s\n", engine.size(), digest == engine.sha256() ? digest.c_str() : "other bytes");
    } catch (const scons_tensorrt::VerificationError& error) {
      std::printf("%s\n", error.what());
    }
  }
}
