// A session's time limit. On a board it counts by the clock. An emulator shares its machine: there the clock also runs while a session waits
// for a processor, which says nothing about the session. So the limit then counts the processor time of its busiest thread, and the time in
// which all its threads sleep. Processor time counts half while the machine is crowded: beside twelve other programs, the same kernel in four
// threads took up to 1.7 times as much of it, because they share caches and cores.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>

namespace agent {

constexpr double kLookSeconds = 0.2;
// A machine is crowded if sessions wait for a processor at least as long as they run; this much of its processor time then counts as one second.
constexpr double kCrowded = 2;

class Limit {
 public:
  // By the clock, from `now` on; with a stretch above 1 by progress, for at most that many times as long.
  Limit(double seconds, double stretch, pid_t process, double now, const std::string& proc = "/proc")
      : seconds_(seconds), begin_(now), last_(now), longest_(seconds * stretch), tasks_(proc + "/" + std::to_string(process) + "/task") {}

  // Seconds until the limit may be reached; 0 once it is.
  double Left(double now) {
    double left = begin_ + seconds_ - now;
    if (left > 0) return left;
    if (longest_ <= seconds_ || !Look(now) || Progress(now) >= seconds_) return 0;
    starved_ = now >= begin_ + longest_;
    return starved_ ? 0 : kLookSeconds;
  }

  // Whether it was reached by the clock alone: the session waited for a processor nearly all the time.
  bool starved() const { return starved_; }
  double used() const { return busiest_; }
  double longest() const { return longest_; }

 private:
  double Progress(double now) const {
    bool crowded = now - begin_ >= kCrowded * (busiest_ + asleep_);
    return asleep_ + busiest_ / (crowded ? kCrowded : 1);
  }

  // Brings `busiest_` and `asleep_` up to date; false if the system does not tell.
  bool Look(double now) {
    DIR* folder = opendir(tasks_.c_str());
    if (folder == nullptr) return false;
    double busiest = 0;
    bool awake = false, told = false;
    while (const dirent* entry = readdir(folder)) {
      double used;
      char state;
      if (entry->d_name[0] == '.' || !Read(tasks_ + "/" + entry->d_name + "/stat", &used, &state)) continue;
      told = true;
      busiest = std::max(busiest, used);
      awake = awake || state == 'R' || state == 'D';  // it waits for a processor or a disk, if it does not run
    }
    closedir(folder);
    // Who looks may have waited too: then nobody knows what happened meanwhile.
    double passed = std::min(now - last_, 2 * kLookSeconds);
    if (looked_ && !awake) asleep_ += std::max(0.0, passed - (busiest - busiest_));
    busiest_ = std::max(busiest_, busiest);
    last_ = now;
    looked_ = true;
    return told;
  }

  // A thread's processor time in seconds, and its state (proc(5)).
  static bool Read(const std::string& path, double* used, char* state) {
    char text[1024];
    int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;
    ssize_t size = read(file, text, sizeof(text) - 1);
    close(file);
    if (size <= 0) return false;
    text[size] = 0;
    const char* name_end = strrchr(text, ')');  // the name may hold anything
    unsigned long user, system;
    if (name_end == nullptr || sscanf(name_end + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", state, &user, &system) != 3)
      return false;
    *used = static_cast<double>(user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
    return true;
  }

  double seconds_, begin_, last_, longest_, busiest_ = 0, asleep_ = 0;
  bool looked_ = false, starved_ = false;
  std::string tasks_;
};

}  // namespace agent
