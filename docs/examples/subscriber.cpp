// Prints topic and payload of every event, and counts gaps.   C++17 and libzmq, no other library.
//   g++ -std=c++17 -O2 subscriber.cpp -o subscriber -lzmq      (Debian, Ubuntu: apt-get install g++ libzmq3-dev)
//   ./subscriber [ADDRESS [TOPIC [COUNT]]]                     by default tcp://127.0.0.1:5556 action.
#include <zmq.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <optional>
#include <string>

// The value after "name": in a message of the line, up to the next comma or brace. "session" and "seq" stand before
// anything that a person named, so the first place is the right one.
static std::optional<std::string> field(const std::string &json, const std::string &name) {
    const std::string mark = "\"" + name + "\":";
    const auto at = json.find(mark);
    if (at == std::string::npos) return std::nullopt;
    const auto begin = at + mark.size();
    const auto end = json.find_first_of(",}", begin);
    return end == std::string::npos ? std::nullopt : std::optional(json.substr(begin, end - begin));
}

static bool receive(void *socket, std::string &into, bool &more) {
    zmq_msg_t part;
    zmq_msg_init(&part);
    const bool came = zmq_msg_recv(&part, socket, 0) >= 0;
    if (came) into.assign(static_cast<char *>(zmq_msg_data(&part)), zmq_msg_size(&part));
    more = came && zmq_msg_more(&part);
    zmq_msg_close(&part);
    return came;
}

int main(int count, char **given) {
    const std::string address = count > 1 ? given[1] : "tcp://127.0.0.1:5556";
    const std::string prefix = count > 2 ? given[2] : "action.";
    const long most = count > 3 ? std::atol(given[3]) : -1;

    void *context = zmq_ctx_new();
    void *socket = zmq_socket(context, ZMQ_SUB);
    zmq_setsockopt(socket, ZMQ_SUBSCRIBE, prefix.data(), prefix.size());
    if (zmq_connect(socket, address.c_str()) != 0) {
        std::cerr << "cannot connect to " << address << ": " << zmq_strerror(zmq_errno()) << "\n";
        return 2;
    }
    std::map<std::string, long> expected;  // session and family -> next seq; only a whole family has no holes
    std::string topic, payload;
    bool more = false;
    for (long seen = 0; seen != most && receive(socket, topic, more); ++seen) {
        if (!more || !receive(socket, payload, more)) continue;
        while (more) {  // a message of this version has two frames
            std::string rest;
            receive(socket, rest, more);
        }
        const auto seq = field(payload, "seq"), session = field(payload, "session");
        if (seq && session) {
            const long number = std::atol(seq->c_str());
            auto [next, first] = expected.try_emplace(*session + topic.substr(0, topic.find('.')), number);
            if (number > next->second) std::cerr << "gap: " << number - next->second << " messages were missed\n";
            next->second = number + 1;
        }
        std::cout << topic << " " << payload << std::endl;
    }
    zmq_close(socket);
    zmq_ctx_term(context);
    return 0;
}
