// Load a TensorRT engine, verified against its sidecar and, if given, against the manifest of its release.
//
//     #include <scons_tensorrt/verified_engine.hpp>
//
//     auto engine = scons_tensorrt::load_verified("engines/dinov2_vpr__sm87_jp6.2_trt10.3_fp16.engine");
//     auto* cuda_engine = runtime->deserializeCudaEngine(engine.data(), engine.size());
//
// The C++ counterpart of Python's scons_tensorrt.load_verified: the same checks, with the same messages.
// Each file is opened once, never through a link, and must be a regular file; the bytes returned are the
// bytes that were hashed. Do not open the path again: the file could be replaced after the check.
//
// C++17, POSIX. SHA-256 is OpenSSL's if SCONS_TENSORRT_WITH_OPENSSL is defined (link with -lcrypto), else
// PicoSHA2's (picosha2.h beside this file, MIT license), which is several times slower.
//
// SPDX-License-Identifier: Apache-2.0
#ifndef SCONS_TENSORRT_VERIFIED_ENGINE_HPP
#define SCONS_TENSORRT_VERIFIED_ENGINE_HPP

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#ifdef SCONS_TENSORRT_WITH_OPENSSL
#include <openssl/evp.h>
#else
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#endif
#include "picosha2.h"
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
#endif

namespace scons_tensorrt {

namespace detail {

// The code point of the UTF-8 sequence at `at`, and its length in bytes; of an invalid byte, 0xdc00 more than
// the byte, as Python's surrogateescape has it.
inline std::uint32_t code_point(const std::string& text, std::size_t at, std::size_t& length) {
  const auto byte = [&text](std::size_t index) { return static_cast<unsigned char>(text[index]); };
  const std::uint32_t first = byte(at);
  length = first < 0x80 ? 1 : first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  std::uint32_t code = length == 1 ? first : first & (0x7fU >> length);
  bool valid = (first < 0x80 || first >= 0xc2) && first <= 0xf4 && at + length <= text.size();
  for (std::size_t index = at + 1; valid && index < at + length; ++index) {
    valid = (byte(index) & 0xc0) == 0x80;
    code = code << 6 | (byte(index) & 0x3fU);
  }
  static constexpr std::uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  if (valid && code >= least[length] && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff)) return code;
  length = 1;
  return 0xdc00 + first;
}

// Whether a character breaks a line, controls a terminal, or changes the order or width of what is shown.
inline bool is_control(std::uint32_t code) {
  return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0xad || (code >= 0x200b && code <= 0x200f) ||
         (code >= 0x2028 && code <= 0x202e) || (code >= 0x2060 && code <= 0x206f) || code == 0xfeff ||
         (code >= 0xd800 && code <= 0xdfff);
}

// `text` with such characters escaped, as Python's one_line of errors.py does: it quotes names and contents of
// files that others chose.
inline std::string one_line(const std::string& text) {
  static const char digits[] = "0123456789abcdef";
  std::string out;
  for (std::size_t at = 0, length = 1; at < text.size(); at += length) {
    const std::uint32_t code = code_point(text, at, length);
    if (!is_control(code)) {
      out.append(text, at, length);
    } else if (code == '\n' || code == '\r' || code == '\t') {
      out += code == '\n' ? "\\n" : code == '\r' ? "\\r" : "\\t";
    } else {
      out += code < 0x100 ? "\\x" : "\\u";
      for (int shift = code < 0x100 ? 4 : 12; shift >= 0; shift -= 4) out += digits[code >> shift & 15];
    }
  }
  return out;
}

}  // namespace detail

// The engine must not be loaded; what() is one line with the path and the reason.
class VerificationError : public std::runtime_error {
 public:
  explicit VerificationError(const std::string& message) : std::runtime_error(detail::one_line(message)) {}
};

struct VerifyOptions {
  // The largest engine to read, in bytes; 0: this machine's memory.
  std::uint64_t max_bytes = 0;
  // Path of the SHA256SUMS file beside a manifest, which must list the engine with its hash.
  std::optional<std::string> sums = {};
  // A hash that the caller has from a source it trusts: 64 lowercase hex characters.
  std::optional<std::string> sha256 = {};
};

// The bytes of a verified engine.
class VerifiedEngine {
 public:
  VerifiedEngine(std::unique_ptr<unsigned char[]> bytes, std::size_t size, std::string sha256)
      : bytes_(std::move(bytes)), size_(size), sha256_(std::move(sha256)) {}

  const void* data() const noexcept { return bytes_.get(); }
  std::size_t size() const noexcept { return size_; }
  const std::string& sha256() const noexcept { return sha256_; }

 private:
  std::unique_ptr<unsigned char[]> bytes_;
  std::size_t size_;
  std::string sha256_;
};

namespace detail {

constexpr std::size_t kHeaderBytes = 64;
constexpr std::size_t kLongestSidecar = 4096;
constexpr std::uint64_t kLongestSums = std::uint64_t{64} << 20;

inline std::string error_text(int code) { return std::generic_category().message(code); }

// A descriptor of a regular file, opened without following a link in its last component.
class File {
 public:
  explicit File(const std::string& path) {
    if (path.find('\0') != std::string::npos) fail(EINVAL);
    fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
    if (fd_ < 0) fail(errno);
    struct stat found = {};
    const int code = ::fstat(fd_, &found) != 0 ? errno : S_ISDIR(found.st_mode) ? EISDIR : 0;
    if (code != 0 || !S_ISREG(found.st_mode)) {
      ::close(fd_);
      fail(code != 0 ? code : ENXIO);
    }
    size_ = static_cast<std::uint64_t>(found.st_size);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { ::close(fd_); }

  // The size when it was opened, in bytes.
  std::uint64_t size() const noexcept { return size_; }

  // Read up to `wanted` bytes from the current position; fewer only at the end of the file.
  std::size_t read(unsigned char* to, std::size_t wanted) const {
    std::size_t done = 0;
    while (done < wanted) {
      // Linux transfers at most 2 GiB a call, and macOS refuses more.
      const auto count = ::read(fd_, to + done, std::min<std::size_t>(wanted - done, std::size_t{1} << 30));
      if (count == 0) break;
      if (count > 0) {
        done += static_cast<std::size_t>(count);
      } else if (errno != EINTR) {
        fail(errno);
      }
    }
    return done;
  }

 private:
  [[noreturn]] static void fail(int code) {
    if (code == ELOOP) throw std::system_error(code, std::generic_category(), "a link");
    throw std::system_error(code, std::generic_category());
  }

  int fd_ = -1;
  std::uint64_t size_ = 0;
};

// Why a file could not be opened or read, without its path.
inline std::string reason(const std::system_error& error) {
  switch (error.code().value()) {
    case ELOOP:
      return "a symbolic link, which is never followed";
    case EINVAL:
    case ENXIO:
    case ENODEV:
      return "not a regular file";
    default:
      return error_text(error.code().value());
  }
}

inline std::string hex(const unsigned char* bytes, std::size_t size) {
  static const char digits[] = "0123456789abcdef";
  std::string text;
  text.reserve(2 * size);
  for (std::size_t i = 0; i < size; ++i) {
    text += digits[bytes[i] >> 4];
    text += digits[bytes[i] & 15];
  }
  return text;
}

#ifdef SCONS_TENSORRT_WITH_OPENSSL
inline std::string sha256_of(const unsigned char* bytes, std::size_t size) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  if (EVP_Digest(bytes, size, digest, &length, EVP_sha256(), nullptr) != 1) {
    throw std::runtime_error("OpenSSL cannot compute SHA-256");
  }
  return hex(digest, length);
}
#else
inline std::string sha256_of(const unsigned char* bytes, std::size_t size) {
  constexpr std::size_t piece = std::size_t{1} << 20;
  picosha2::hash256_one_by_one hash;
  for (std::size_t at = 0; at < size; at += piece) {
    hash.process(bytes + at, bytes + std::min(size, at + piece));
  }
  hash.finish();
  std::array<unsigned char, picosha2::k_digest_size> digest = {};
  hash.get_hash_bytes(digest.begin(), digest.end());
  return hex(digest.data(), digest.size());
}
#endif

inline bool is_digest(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

inline std::string basename_of(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// `text` in quotes, as one printable line.
inline std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char each : text) {
    const auto byte = static_cast<unsigned char>(each);
    out += byte < 0x20 || byte > 0x7e ? "\\x" + hex(&byte, 1) : std::string(1, each);
  }
  return out + "'";
}

// The sha256 that an engine's sidecar states: 64 lowercase hex characters, alone or in a line of sha256sum.
inline std::string read_sidecar(const std::string& engine) {
  const std::string path = engine + ".sha256";
  const auto fault = [&path](const std::string& why) { return VerificationError(path + ": sidecar " + why); };
  std::string text(kLongestSidecar + 1, '\0');
  try {
    text.resize(File(path).read(reinterpret_cast<unsigned char*>(&text[0]), text.size()));
  } catch (const std::system_error& error) {
    const bool missing = error.code().value() == ENOENT;
    throw fault(missing ? "missing" : "not readable (" + reason(error) + ")");
  }
  if (text.empty()) throw fault("empty");
  std::string line = text.back() == '\n' ? text.substr(0, text.size() - 1) : text;
  const std::string digest = line.substr(0, 64);
  const std::string rest = line.size() > 64 ? line.substr(64) : "";
  const bool plain = rest.empty();
  const bool named = rest.size() > 2 && rest[0] == ' ' && (rest[1] == ' ' || rest[1] == '*') &&
                     rest.find('\n') == std::string::npos;
  if (!is_digest(digest) || !(plain || named)) throw fault("malformed (not 64 lowercase hex characters)");
  if (named && rest.substr(2) != basename_of(engine)) {
    throw fault("names another file, " + quoted(rest.substr(2)));
  }
  return digest;
}

inline std::uint64_t little_endian(const unsigned char* bytes, std::size_t count) {
  std::uint64_t value = 0;
  for (std::size_t i = count; i > 0; --i) value = value << 8 | bytes[i - 1];
  return value;
}

// The header of a plan. Neither layout is documented: they are from plans of TensorRT for RTX 1.7.1 and
// from published TensorRT plans, see artifact/plan_header.py.
struct Header {
  const char* product = nullptr;  // nullptr: unknown
  const char* runtime = nullptr;  // as an engine's filename spells it
  bool states_size = false;
  std::uint64_t size = 0;
  std::vector<int> architectures = {};  // empty: unknown
};

inline Header parse_header(const unsigned char* data, std::size_t size) {
  Header header;
  if (size < kHeaderBytes) return header;
  if (std::memcmp(data, "ftrt", 4) == 0) {
    header.product = "tensorrt";
    header.runtime = "trt";
  } else if (std::memcmp(data, "vtrt", 4) == 0) {
    static constexpr int sms[] = {75, 80, 86, 89, 120, 121};  // by bit
    header.product = "tensorrt_rtx";
    header.runtime = "rtx";
    header.states_size = true;
    header.size = little_endian(data + 16, 8);
    const std::uint64_t mask = little_endian(data + 32, 4);
    for (std::size_t bit = 0; mask >> 7 == 0 && bit < 6; ++bit) {  // bit 6: later architectures
      if (mask >> bit & 1) header.architectures.push_back(sms[bit]);
    }
  }
  return header;
}

// Why `size` bytes that begin with `head` are not a complete plan; empty if they may be one.
inline std::string cut_short(const unsigned char* head, std::size_t head_size, std::uint64_t size) {
  if (size == 0) return "it is empty";
  if (head_size < kHeaderBytes && head_size >= 4 && std::memcmp(head, "vtrt", 4) == 0) {
    return "it ends inside its header, after " + std::to_string(head_size) + " bytes";
  }
  const Header header = parse_header(head, head_size);
  if (header.states_size && header.size != size) {
    return "it has " + std::to_string(size) + " bytes where its header promises " +
           std::to_string(header.size);
  }
  return "";
}

// What an engine's filename says of its plan: the same schema as artifact/filename.py.
struct Name {
  int sm = 0;
  bool plus = false;
  std::string runtime = {};
};

inline bool is_number(const std::string& text, std::size_t longest, bool zero) {
  const bool digits = text.find_first_not_of("0123456789") == std::string::npos;
  return digits && !text.empty() && text.size() <= longest && (text[0] != '0' || (zero && text.size() == 1));
}

// Whether `text` is like jp6.2 with one of two prefixes.
inline bool is_versioned(const std::string& text, const std::string& one, const std::string& other) {
  const std::size_t start = text.find_first_of("0123456789");
  const std::size_t dot = text.find('.');
  if (start == std::string::npos || dot == std::string::npos || dot < start) return false;
  const std::string prefix = text.substr(0, start);
  return (prefix == one || prefix == other) && is_number(text.substr(start, dot - start), 6, true) &&
         is_number(text.substr(dot + 1), 6, true);
}

inline bool is_model(const std::string& text) {
  return !text.empty() && text.size() <= 64 && text.front() != '_' && text.back() != '_' &&
         text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string::npos;
}

// The fields of <model>__sm<SM>[plus]_<platform>_<runtime>_<precision>.engine; none for any other name.
inline std::optional<Name> parse_name(const std::string& filename) {
  static const std::string suffix = ".engine";
  static const std::array<const char*, 9> precisions = {"fp32", "tf32", "fp16", "bf16", "int8",
                                                        "fp8",  "int4", "fp4",  "mixed"};
  if (filename.size() < suffix.size()) return {};
  const std::string stem = filename.substr(0, filename.size() - suffix.size());
  if (filename.substr(stem.size()) != suffix) return {};
  const std::size_t separator = stem.find("__");
  if (separator == std::string::npos || !is_model(stem.substr(0, separator))) return {};
  std::vector<std::string> fields;
  for (std::size_t at = separator + 2; at <= stem.size() && fields.size() < 5;) {
    const std::size_t end = std::min(stem.find('_', at), stem.size());
    fields.push_back(stem.substr(at, end - at));
    at = end + 1;
  }
  if (fields.size() != 4 || fields[0].substr(0, 2) != "sm" || !is_versioned(fields[1], "jp", "cu") ||
      !is_versioned(fields[2], "trt", "rtx") ||
      std::find(precisions.begin(), precisions.end(), fields[3]) == precisions.end()) {
    return {};
  }
  std::string sm = fields[0].substr(2);
  const bool plus = sm.size() > 4 && sm.substr(sm.size() - 4) == "plus";
  if (plus) sm.resize(sm.size() - 4);
  if (!is_number(sm, 4, false)) return {};
  return Name{std::stoi(sm), plus, fields[2]};
}

// How a plan's header contradicts the engine's filename; empty if it does not. A device may use any name.
inline std::string why_not_named(const Header& header, const std::string& filename) {
  const std::optional<Name> name = parse_name(filename);
  if (header.product == nullptr || !name) return "";
  if (name->runtime.substr(0, 3) != header.runtime) {
    return std::string("it is a plan of ") + header.product + ", and its name says " + name->runtime;
  }
  const auto& sms = header.architectures;
  if (sms.empty() || (name->plus ? sms.front() >= name->sm : sms == std::vector<int>{name->sm})) return "";
  std::string listed;
  for (const int each : sms) listed += (listed.empty() ? "" : ", ") + std::to_string(each);
  return "its plan is for SM " + listed + ", and its name says sm" + std::to_string(name->sm) +
         (name->plus ? "plus" : "");
}

// The hash that a SHA256SUMS file lists for a file name.
inline std::string listed_in(const std::string& sums, const std::string& name) {
  std::string text;
  try {
    const File file(sums);
    if (file.size() > kLongestSums) throw std::system_error(EFBIG, std::generic_category());
    text.resize(static_cast<std::size_t>(file.size()) + 1);
    text.resize(file.read(reinterpret_cast<unsigned char*>(&text[0]), text.size()));
  } catch (const std::system_error& error) {
    throw VerificationError(sums + ": not readable (" + reason(error) + ")");
  }
  std::string digest;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    if (line.size() < 67 || !is_digest(line.substr(0, 64)) || line[64] != ' ') {
      throw VerificationError(sums + ": not the output of sha256sum");
    }
    if (line.substr(66) != name) continue;
    if (!digest.empty()) throw VerificationError(sums + ": lists " + quoted(name) + " twice");
    digest = line.substr(0, 64);
  }
  if (digest.empty()) throw VerificationError(sums + ": does not list " + quoted(name));
  return digest;
}

inline std::uint64_t memory() {
  return static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
         static_cast<std::uint64_t>(::sysconf(_SC_PAGE_SIZE));
}

}  // namespace detail

// The bytes of an engine, verified against its sidecar, its plan header and its filename, and against the
// options. Throws VerificationError; std::bad_alloc if there is no memory for the bytes.
inline VerifiedEngine load_verified(const std::string& engine, const VerifyOptions& options = {}) {
  const auto fault = [&engine](const std::string& why) { return VerificationError(engine + ": " + why); };
  const std::string name = detail::basename_of(engine);
  const std::string stated = detail::read_sidecar(engine);
  try {
    const detail::File file(engine);
    const std::uint64_t most = options.max_bytes != 0 ? options.max_bytes : detail::memory();
    if (file.size() > most) {  // also if it is sparse
      throw fault("it has " + std::to_string(file.size()) + " bytes, more than " + std::to_string(most));
    }
    // The header before the rest: a sparse file with a plan's header takes no memory.
    const auto size = static_cast<std::size_t>(file.size());
    unsigned char head[detail::kHeaderBytes] = {};
    const std::size_t head_size = file.read(head, sizeof(head));
    std::string why = detail::cut_short(head, head_size, size);
    if (!why.empty()) throw fault(why);
    // Not initialized, unlike a vector: every byte is read into. One more byte shows that the file grew.
    std::unique_ptr<unsigned char[]> bytes(new unsigned char[size + 1]);
    std::size_t read = head_size;
    if (head_size <= size) {
      std::memcpy(bytes.get(), head, head_size);
      read += file.read(bytes.get() + head_size, size + 1 - head_size);
    }
    if (read > size) throw fault("it changed while it was read; try again");
    const std::string digest = detail::sha256_of(bytes.get(), read);
    if (digest != stated) throw fault("its sha256 does not match its sidecar");
    why = detail::cut_short(head, head_size, read);
    if (why.empty()) why = detail::why_not_named(detail::parse_header(head, head_size), name);
    if (!why.empty()) throw fault(why);
    const auto check = [&](const std::string& source, const std::string& wanted) {
      if (wanted == digest) return;
      throw fault("does not match " + source + ": sha256 " + wanted.substr(0, 12) + " listed, " +
                  digest.substr(0, 12) + " found");
    };
    if (options.sums) check(*options.sums, detail::listed_in(*options.sums, name));
    if (options.sha256) check("the sha256 that was given", *options.sha256);
    return VerifiedEngine(std::move(bytes), read, digest);
  } catch (const std::system_error& error) {
    const bool missing = error.code().value() == ENOENT;
    throw fault(missing ? "the engine is missing"
                        : "the engine is not readable (" + detail::reason(error) + ")");
  }
}

}  // namespace scons_tensorrt

#endif  // SCONS_TENSORRT_VERIFIED_ENGINE_HPP
