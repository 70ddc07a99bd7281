// tvmmobile's device agent: a TVM RPC server that registers at a tracker, serves each session in a process of its own and outlives whatever
// that process does. Sessions speak TVM's RPC and run arbitrary code, so it listens on one given address only (127.0.0.1; boards are reached
// through a tunnel) and serves only clients who prove to know the run's secret (reception.h), which it reads from standard input.
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <future>
#include <sstream>
#include <thread>

#include "limit.h"
#include "reception.h"
#include "stream.h"
#include "timing.h"
#include "tracker.h"

#ifndef POLLRDHUP
#define POLLRDHUP 0x2000
#endif

namespace agent {

constexpr int kBacklog = 128;
constexpr double kPingSeconds = 2;
// Where a session's stack begins, modulo what the simulated caches' sets span at most: the place decides which lines it shares a set with.
constexpr uintptr_t kStackSpan = 1 << 17, kStackPlace = 0x19430;
constexpr int kUnusedPings = 2;        // an offer that was taken and not used is made again after this many pings
constexpr double kGoodbyeSeconds = 1;  // for a session's process to end by itself once its client has gone

struct Options {
  std::string tracker_host = "127.0.0.1", host = "127.0.0.1", key, work_dir, profile_dir;
  int tracker_port = 0;
  double session_timeout = 600, stretch = 1;
};

int wake_pipe[2] = {-1, -1};  // a signal handler may only write to it; every wait polls it
void OnSignal(int) {
  char byte = 0;
  [[maybe_unused]] ssize_t n = write(wake_pipe[1], &byte, 1);
}

[[noreturn]] void Usage(const std::string& problem) {
  fprintf(stderr,
          "tvmmobile-agent: %s\nusage: tvmmobile-agent --tracker HOST:PORT --key KEY --work-dir DIR [--host 127.0.0.1]\n"
          "                       [--session-timeout SECONDS] [--profile-dir DIR] [--stretch FACTOR]\n"
          "The run's secret is a line of 64 hexadecimal digits on standard input.\n"
          "QEMU's plugin leaves profiles in the work directory; sessions, each in a folder of its own there, read them from --profile-dir.\n"
          "With --stretch, sessions' limits do not count time in which they wait for a processor, for up to that many times as long.\n",
          problem.c_str());
  exit(1);
}

Options ParseOptions(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    std::string name = argv[i];
    if (i + 1 >= argc) Usage(name + " needs a value");
    std::string value = argv[i + 1];
    if (name == "--tracker") {
      size_t colon = value.rfind(':');
      if (colon == std::string::npos) Usage("--tracker needs HOST:PORT");
      options.tracker_host = value.substr(0, colon);
      options.tracker_port = atoi(value.c_str() + colon + 1);
    } else if (name == "--key") options.key = value;
    else if (name == "--host") options.host = value;
    else if (name == "--work-dir") options.work_dir = value;
    else if (name == "--profile-dir") options.profile_dir = value;
    else if (name == "--session-timeout") options.session_timeout = atof(value.c_str());
    else if (name == "--stretch") options.stretch = atof(value.c_str());
    else Usage("unknown option " + name);
  }
  if (options.tracker_port <= 0 || options.key.empty() || options.work_dir.empty()) Usage("--tracker, --key and --work-dir are needed");
  return options;
}

int Listen(const std::string& host, int* port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  if (inet_pton(AF_INET, host.c_str(), &address.sin_addr) != 1) Usage("--host must be an IPv4 address");
  socklen_t size = sizeof(address);
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(fd, kBacklog) != 0 ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0)
    throw std::runtime_error("cannot listen on " + host + ": " + strerror(errno));
  *port = ntohs(address.sin_port);
  return fd;
}

// Serves one client in the current directory. No path of this machine is copied here, and none may be: the length of such a string would
// move what is allocated after it, and with it the lines that the simulated caches miss.
void RunSession(int fd, const Options& options) {
  auto in_directory = [](const std::string& name) { return "./" + std::filesystem::path(name).filename().string(); };
  auto work_path = [=](ffi::String name) { return ffi::String(in_directory(name)); };
  // Of a relative name the loader would note the directory's whole path.
  auto load_module = [=](ffi::String name) { return ffi::Module::LoadFromFile("/proc/self/cwd/" + in_directory(name)); };
  auto address = [](DLTensor* tensor) { return static_cast<int64_t>(reinterpret_cast<uint64_t>(tensor->data) + tensor->byte_offset); };
  ffi::Function::SetGlobal("tvm.rpc.server.workpath", ffi::Function::FromTyped(work_path), true);
  ffi::Function::SetGlobal("tvm.rpc.server.load_module", ffi::Function::FromTyped(load_module), true);
  ffi::Function::SetGlobal("tvmmobile.address", ffi::Function::FromTyped(address), true);
  RegisterTiming(options.profile_dir, MemoryField("VmRSS"));
  auto stream = std::make_shared<SessionStream>(fd, ".");
  auto send = ffi::Function::FromPacked([stream](ffi::PackedArgs args, ffi::Any* sent) {
    TVMFFIByteArray* bytes = args[0].cast<TVMFFIByteArray*>();
    *sent = stream->Send(bytes->data, bytes->size);
  });
  auto receive = ffi::Function::FromTyped([stream](int64_t size) { return ffi::Bytes(stream->Receive(static_cast<size_t>(size))); });
  ffi::Function serve = ffi::Function::GetGlobalRequired("rpc.ServerLoop");
  uintptr_t top;  // however large the frames above are
  asm volatile("mov %0, sp" : "=r"(top));
  asm volatile("" ::"r"(alloca((top - kStackPlace) % kStackSpan)));
  serve(send, receive);
}

// A process forked from a thread that has allocated nothing yet, and that lives as long as this object: the process dies with it. The new
// process has that thread alone, and it allocates from an arena of its own: what sessions before have left of the agent's heap would otherwise
// show in what malloc does, and a second thread in what QEMU's plugin sees.
class Fork {
 public:
  explicit Fork(const std::function<void()>& child) {
    if (pipe2(end_, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
    std::promise<pid_t> forked;
    auto result = forked.get_future();
    thread_ = std::thread([this, &child, &forked] {
      pid_t process = fork();
      if (process == 0) child();
      forked.set_value(process);
      char byte;
      [[maybe_unused]] ssize_t n = read(end_[0], &byte, 1);
    });
    process_ = result.get();
  }
  ~Fork() {
    close(end_[1]);
    thread_.join();
    close(end_[0]);
  }
  pid_t process() const { return process_; }

 private:
  int end_[2];
  pid_t process_ = -1;
  std::thread thread_;
};

// The session's process: TVM's own server loop in a directory of its own.
[[noreturn]] void Serve(int fd, const std::string& directory, const Options& options) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() == 1) _exit(1);
  signal(SIGTERM, SIG_DFL);
  signal(SIGINT, SIG_DFL);
  signal(SIGHUP, SIG_DFL);
  int status = 1;
  try {
    if (chdir(directory.c_str()) != 0) throw std::runtime_error("cannot enter " + directory);
    RunSession(fd, options);
    status = 0;
  } catch (const std::exception& error) {
    fprintf(stderr, "tvmmobile-agent: the session ended: %s\n", error.what());
  }
  _exit(status);  // no destructors: libraries that are still loaded may not survive them
}

double SecondsNow() { return static_cast<double>(NowNs()) * 1e-9; }

std::string SecondsText(double seconds) {
  std::ostringstream text;
  text << seconds;
  return text.str();
}

enum class Outcome { kServed, kStop };

class Agent {
 public:
  // The secret must outlive the agent.
  Agent(Options options, Digest& secret) : options_(std::move(options)), secret_(secret) {
    listener_ = Listen(options_.host, &port_);
    reception_ = std::make_unique<Reception>(listener_, secret_);
    tracker_ = std::make_unique<Tracker>(options_.tracker_host, options_.tracker_port, secret_, options_.key, options_.host, port_);
  }

  // Serves until the tracker or the launcher goes away or a signal asks to stop.
  void Run() {
    tracker_->Offer();
    int unused = 0;
    double next_ping = SecondsNow() + kPingSeconds;
    while (true) {
      std::vector<pollfd> waits = {{tracker_->fd(), POLLIN | POLLRDHUP, 0}, {wake_pipe[0], POLLIN, 0}};
      reception_->WaitFor(&waits);
      double left = std::max(0.0, next_ping - SecondsNow());
      int ready = poll(waits.data(), waits.size(), static_cast<int>(std::ceil(left * 1000)));
      if (ready < 0 && errno == EINTR) continue;
      if (waits[0].revents != 0 || waits[1].revents != 0) return;  // the tracker never speaks first: this is its end
      double timeout = options_.session_timeout;
      int fd = reception_->Receive(&waits[2], tracker_->offer(), SecondsNow(), &timeout);
      if (fd >= 0) {
        Outcome outcome = Session(fd, std::min(timeout, options_.session_timeout));
        close(fd);
        if (outcome == Outcome::kStop) return;
        tracker_->Offer();
        unused = 0;
      } else if (SecondsNow() >= next_ping) {
        unused = tracker_->StillOffered() ? 0 : unused + 1;
        if (unused > kUnusedPings) {
          tracker_->Offer();
          unused = 0;
        }
      } else {
        continue;
      }
      next_ping = SecondsNow() + kPingSeconds;
    }
  }

 private:
  Outcome Session(int fd, double timeout) {
    SetDeadline(fd, 0);
    std::string directory = options_.work_dir + "/session-" + std::to_string(++sessions_);
    if (mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
      SayWhy(fd, std::string("cannot be stored: ") + strerror(errno));
      return Outcome::kServed;
    }
    int alive[2];  // the child holds the writing end: its end, however it comes, shows as a hang-up
    if (pipe2(alive, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
    Fork fork([&] {
      close(listener_);
      close(tracker_->fd());
      reception_->CloseAll();
      explicit_bzero(secret_.data(), secret_.size());  // a session's code has no business with it
      close(alive[0]);
      Serve(fd, directory, options_);
    });
    pid_t child = fork.process();
    close(alive[1]);
    if (child < 0) {
      close(alive[0]);
      return Outcome::kServed;
    }
    setpgid(child, child);
    Outcome outcome = Outcome::kServed;
    std::string reason = Watch(fd, alive[0], child, timeout, &outcome);
    close(alive[0]);
    if (!reason.empty()) SayWhy(fd, reason);
    std::error_code ignored;
    std::filesystem::remove_all(directory, ignored);
    if (!options_.profile_dir.empty()) RemoveProfile(options_.work_dir, child);
    return outcome;
  }

  // Waits for the session's end; "" if it ended well, else what happened, first word "crashed", "timeout" or "starved".
  std::string Watch(int fd, int alive, pid_t child, double timeout, Outcome* outcome) {
    Limit limit(timeout, options_.stretch, child, SecondsNow());
    double goodbye = 0;
    bool client_gone = false, late = false, ended = false;
    while (!ended) {
      double left = client_gone ? goodbye - SecondsNow() : limit.Left(SecondsNow());
      if (left <= 0) {
        late = !client_gone;
        break;
      }
      pollfd waits[4] = {
          {alive, POLLIN, 0}, {tracker_->fd(), POLLIN | POLLRDHUP, 0}, {wake_pipe[0], POLLIN, 0}, {client_gone ? -1 : fd, POLLRDHUP, 0}};
      int ready = poll(waits, 4, static_cast<int>(std::ceil(std::min(left, 3600.0) * 1000)));
      if (ready < 0 && errno == EINTR) continue;
      if (waits[2].revents != 0 || waits[1].revents != 0) {
        *outcome = Outcome::kStop;
        break;
      }
      if (waits[0].revents != 0) ended = true;
      if (!client_gone && waits[3].revents != 0) {
        client_gone = true;
        goodbye = SecondsNow() + kGoodbyeSeconds;
      }
    }
    // Nothing else keeps the pipe's end open, so an ended child is a zombie or about to be one; any other is stopped here, with its group.
    if (!ended) kill(child, SIGKILL);
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    kill(-child, SIGKILL);
    if (limit.starved()) return "starved: had " + SecondsText(limit.used()) + " s of a processor in " + SecondsText(limit.longest()) + " s";
    if (late) return "timeout: did not finish within " + SecondsText(timeout) + " s";
    if (client_gone || *outcome == Outcome::kStop) return "";
    if (WIFSIGNALED(status)) {
      const char* name = sigabbrev_np(WTERMSIG(status));
      return "crashed: killed by SIG" + std::string(name == nullptr ? std::to_string(WTERMSIG(status)) : name);
    }
    return WEXITSTATUS(status) == 0 ? "" : "crashed: the session's process ended with code " + std::to_string(WEXITSTATUS(status));
  }

  // Answers the call the client is waiting for with the reason, and lets it read that before the socket closes.
  void SayWhy(int fd, const std::string& reason) {
    SetDeadline(fd, kGoodbyeSeconds);
    ffi::Function::GetGlobalRequired("rpc.ReturnException")(fd, ffi::String("tvmmobile session " + reason));
    shutdown(fd, SHUT_WR);
    char scratch[65536];
    double deadline = SecondsNow() + kGoodbyeSeconds;
    while (SecondsNow() < deadline && recv(fd, scratch, sizeof(scratch), 0) > 0) {
    }
  }

  Options options_;
  Digest& secret_;
  int listener_ = -1, port_ = 0;
  int64_t sessions_ = 0;
  std::unique_ptr<Reception> reception_;
  std::unique_ptr<Tracker> tracker_;
};

}  // namespace agent

int main(int argc, char** argv) {
  agent::Options options = agent::ParseOptions(argc, argv);
  pid_t launcher = getppid();
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (pipe2(agent::wake_pipe, O_CLOEXEC | O_NONBLOCK) != 0) return 1;
  signal(SIGPIPE, SIG_IGN);
  for (int number : {SIGTERM, SIGINT, SIGHUP}) {
    struct sigaction action {};
    action.sa_handler = agent::OnSignal;
    sigaction(number, &action, nullptr);
  }
  if (getppid() != launcher) return 1;
  umask(0077);
  std::error_code problem;
  std::filesystem::create_directories(options.work_dir, problem);
  // A relative path stays one: its length decides where everything after it is allocated.
  // Random fill for stock MetaSchedule runners lives in this library; everything else works without it.
  dlopen("libtvm_runtime_extra.so", RTLD_NOW | RTLD_GLOBAL);
  // QEMU translates anew for a process with threads; doing that here once spares each session from it.
  std::thread([] {}).join();
  int status = 0;
  try {
    agent::Digest secret = agent::ReadSecret();
    agent::Agent(options, secret).Run();
  } catch (const std::exception& error) {
    fprintf(stderr, "tvmmobile-agent: %s\n", error.what());
    status = 1;
  }
  std::filesystem::remove_all(options.work_dir, problem);
  return status;
}
